"""The demo, run as a person runs it: everything that it promises is seen to be so, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

__all__: list[str] = []

DEMO = [sys.executable, "-m", "client_sdk.cli", "demo"]


@pytest.fixture(scope="module")
def told() -> Any:
    """What ``pjais demo --json`` says: run once for all tests of this file."""
    run = subprocess.run([*DEMO, "--json"], capture_output=True, timeout=110, check=False)
    assert run.returncode == 0, run.stderr.decode() + run.stdout.decode()
    assert run.stderr == b""
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def checks(told: Any) -> dict[str, Any]:
    """The promises, by what they are about."""
    return {check["what"]: check for step in told["steps"] for check in step["checks"]}


def test_every_promise_is_kept_on_both_devices(told: Any, checks: dict[str, Any]) -> None:
    assert told["ok"]
    for check in checks.values():
        assert check["isKept"]
        assert check["laptop"] == check["phone"] == check["promised"], check["what"]


def test_the_story_is_told_step_by_step_with_times(told: Any) -> None:
    names = [step["name"] for step in told["steps"]]
    assert names == [
        "server",
        "devices",
        "import",
        "join",
        "apart",
        "together",
        "restore",
        "proof",
        "meaning",
    ]
    assert all(step["seconds"] >= 0 for step in told["steps"])
    assert sum(step["seconds"] for step in told["steps"]) <= told["seconds"]


def rows(told: Any, step: str) -> dict[str, list[str]]:
    table = next(one["table"] for one in told["steps"] if one["name"] == step)
    return {row[0]: row[1:] for row in table["rows"]}


def test_the_second_device_gets_everything_that_the_first_imported(told: Any) -> None:
    before, after = rows(told, "import"), rows(told, "join")
    for name, least in {
        "personas": 8,
        "memories": 60,
        "conversations": 6,
        "workflows": 1,
        "messages in them": 300,
    }.items():
        laptop, phone = before[name]
        assert int(laptop) >= least
        assert phone == "0"
        assert after[name] == [laptop, laptop]


def test_of_two_edits_of_a_field_the_later_stands_and_the_other_is_kept(checks: dict[str, Any]) -> None:
    assert checks["the same field: a workflow's name"]["laptop"] == "After every field day"
    kept = checks["the same field: a workflow's name: the other value is kept"]
    assert kept["laptop"] == kept["phone"] == ["After a wet field day"]


def test_both_leaves_of_a_map_stand(checks: dict[str, Any]) -> None:
    held = checks["two leaves of a map: Wren's settings"]["phone"]
    assert held == {"theme": "light", "language": "cy"}


def test_both_increments_count(told: Any, checks: dict[str, Any]) -> None:
    before = int(rows(told, "apart")["the same counter: how often Wren was used"][0])
    assert checks["the same counter: how often Wren was used"]["laptop"] == before + 2 + 3


def test_both_adds_stay_and_an_add_beats_a_remove_that_had_not_seen_it(
    told: Any, checks: dict[str, Any]
) -> None:
    what = "the same set: the tags of Withens Moss"
    before = set(rows(told, "apart")[what][0].split(", "))
    assert set(checks[what]["laptop"]) == before | {"snow", "winter"}


def test_both_messages_stay(checks: dict[str, Any]) -> None:
    said = checks["the same list: messages of a conversation"]["phone"]
    assert said == ["Said on the laptop.", "Said on the phone."]


def test_both_edits_of_a_text_stay(checks: dict[str, Any]) -> None:
    text = checks["the same text: Wren's description"]["laptop"]
    assert text.startswith("At last: ")
    assert text.endswith(" Likes rain.")


def test_a_deleted_record_is_deleted_on_both_and_comes_back_with_the_others_edit(
    checks: dict[str, Any],
) -> None:
    assert checks["one deletes a memory that the other edits"]["phone"] == "deleted"
    assert checks["the restored memory has the phone's edit"]["laptop"] == 99


def test_both_devices_and_the_server_are_proved_equal(checks: dict[str, Any]) -> None:
    assert len(checks["the same digest of all records"]["laptop"]) == 32
    assert checks["proved equal to the server"]["laptop"] is True
    assert checks["proved equal to the server"]["phone"] is True


def test_the_files_give_nothing_away(checks: dict[str, Any]) -> None:
    looked = [check for what, check in checks.items() if "gives nothing away" in what]
    assert [check["promised"] for check in looked] == ["not found", "not found"]


# ------------------------------------------------------------------------------------- what it leaves behind


def processes_in(folder: Path) -> list[int]:
    """Return the processes whose command line names the folder: the demo's server, its workers, its Postgres."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.fsencode(folder) in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def until(is_so: Callable[[], bool], *, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demo in the middle: its server has said that it listens."""
    if not Path("/proc").is_dir():
        pytest.skip("no /proc to look for processes in")
    with subprocess.Popen(
        DEMO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    ) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline().startswith(b"server")
        assert processes_in(tmp_path)
        yield demo
        demo.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_ends_its_processes_and_removes_its_folder(
    running: subprocess.Popen[bytes], tmp_path: Path, number: int, code: int
) -> None:
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (code, b"")
    assert processes_in(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_the_server_of_a_killed_demo_ends_itself(running: subprocess.Popen[bytes], tmp_path: Path) -> None:
    running.kill()
    running.communicate(timeout=60)
    until(lambda: not processes_in(tmp_path))


def test_a_kept_folder_holds_devices_that_open_with_their_keys(tmp_path: Path) -> None:
    run = subprocess.run(
        [*DEMO, "--json", "--keep"],
        capture_output=True,
        timeout=110,
        check=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    folder = Path(json.loads(run.stdout)["folder"])
    assert folder.parent == tmp_path
    status = []
    for name in ("laptop", "phone"):
        place = ["--db", str(folder / f"{name}.db"), "--key-file", str(folder / f"{name}.key")]
        told = subprocess.run(
            [sys.executable, "-m", "client_sdk.cli", "status", "--json", *place],
            capture_output=True,
            timeout=60,
            check=True,
        )
        status.append(json.loads(told.stdout))
    laptop, phone = status
    assert laptop["digest"] == phone["digest"]
    assert laptop["records"] == phone["records"]
    assert laptop["pending"] == phone["pending"] == 0
