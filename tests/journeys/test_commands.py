"""Two terminals and a server, through the commands alone: what one does, the other sees."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from client_sdk.hub import sample_path

__all__: list[str] = []


class Terminal:
    """One device's file and key, and the commands on them."""

    def __init__(self, folder: Path, name: str) -> None:
        self.place = ["--db", str(folder / f"{name}.db"), "--key-file", str(folder / f"{name}.key")]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "client_sdk.cli", *arguments, *self.place]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=60)
        return process.returncode, out.decode(), err.decode()

    def json(self, *arguments: str) -> Any:
        code, out, err = self.run(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of its own, run as a person runs it."""
    folder = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-c", "from server.cli import main; main()"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "serve", "--port", "0", "--data", str(folder / "data")],
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        assert line.startswith("listening on "), (folder / "log").read_text()
        yield line.removeprefix("listening on ").strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


@pytest.fixture
def one(server: str, tmp_path: Path) -> Terminal:
    """The first device of a new space, with the sample in it."""
    one = Terminal(tmp_path, "one")
    assert one.json("init", "--server", server)["server"] == server
    one.json("import", str(sample_path()))
    return one


def test_a_second_device_joins_by_the_code_and_comes_to_hold_the_same(
    one: Terminal, server: str, tmp_path: Path
) -> None:
    two = Terminal(tmp_path, "two")
    code, out, err = one.run("invite")
    assert code == 0
    assert "within ten minutes" in err
    invitation = out.strip()
    assert two.json("join", server, invitation)["space"] == one.json("status")["space"]
    assert two.json("status")["server"] == server
    assert server in two.run("status")[1]
    assert one.json("sync")["verified"] is True
    synced = two.json("sync")
    assert synced["verified"] is True
    first = one.json("status")
    assert synced["digest"] == first["digest"]
    assert synced["records"] == first["records"]
    assert two.run("export")[1].partition("\n")[2] == one.run("export")[1].partition("\n")[2]


def test_an_invitation_lets_in_one_device(one: Terminal, server: str, tmp_path: Path) -> None:
    invitation = one.json("invite")["code"]
    assert Terminal(tmp_path, "two").run("join", server, invitation)[0] == 0
    code, out, err = Terminal(tmp_path, "three").run("join", server, invitation, "--json")
    assert (code, out) == (1, "")
    assert json.loads(err)["error"]["code"] == "invitation_used"


async def test_what_one_terminal_imports_the_other_sees_while_it_watches(
    one: Terminal, server: str, tmp_path: Path
) -> None:
    two = Terminal(tmp_path, "two")
    two.json("join", server, one.json("invite")["code"])
    one.json("sync")
    two.json("sync")
    file = Path(__file__).parent.parent / "client_sdk" / "data" / "locomo.json"
    watch = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client_sdk.cli", "watch", "--json", "--collection", "memories", *two.place),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert watch.stdout is not None
    events = []
    imported = False
    async with asyncio.timeout(60):
        async for line in watch.stdout:
            events.append(json.loads(line))
            if events[-1].get("state") == "synced" and not imported:
                imported = True
                await asyncio.to_thread(one.json, "import", str(file))
                await asyncio.to_thread(one.json, "sync")
            if sum(event["event"] == "inserted" for event in events) == 2:
                break
    watch.send_signal(signal.SIGINT)
    _, err = await watch.communicate()
    assert (watch.returncode, err) == (0, b"")
    assert events[0]["event"] == "opened"
    assert sorted(event["record"]["name"] for event in events if event["event"] == "inserted") == [
        "Nora and Emil, session 1",
        "Nora and Emil, session 2",
    ]


def test_two_accounts_do_not_see_one_another(one: Terminal, server: str, tmp_path: Path) -> None:
    one.json("sync")
    stranger = Terminal(tmp_path, "stranger")
    stranger.json("init", "--server", server)
    synced = stranger.json("sync")
    assert synced["space"] != one.json("status")["space"]
    assert sum(synced["records"].values()) == 0


def test_a_file_that_is_open_in_one_terminal_is_not_opened_in_another(one: Terminal) -> None:
    with one.start("watch", "--json") as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        code, _, err = one.run("status", "--json")
        assert code == 1
        assert json.loads(err)["error"]["code"] == "file_in_use"
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=30)
    assert one.run("status")[0] == 0


def test_sync_that_follows_goes_on_until_ctrl_c(one: Terminal) -> None:
    with one.start("sync", "--follow", "--json") as sync:
        assert sync.stdout is not None
        states = []
        for line in sync.stdout:
            states.append(json.loads(line))
            if states[-1]["verified"]:
                break
        sync.send_signal(signal.SIGINT)
        _, err = sync.communicate(timeout=30)
    assert (sync.returncode, err) == (0, b"")
    assert states[-1]["state"] == "synced"
    assert states[-1]["pending"] == 0
