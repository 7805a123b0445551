"""The commands: what they answer, in words and in JSON, and how they fail: one line, a code, no traceback."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import pytest
from click.testing import CliRunner, Result

from client_sdk.cli import main
from client_sdk.cli.device import default_path
from client_sdk.hub import sample_path

__all__: list[str] = []

DATA = Path(__file__).parent / "data"
NOW = "2026-11-24T09:00:00Z"
NOBODY = "http://127.0.0.1:9"  # the discard port: nothing of ours listens there

Pjais = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, so that defaults lead nowhere else."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("PJAIS_DB", "PJAIS_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def pjais(home: Path) -> Pjais:
    """Return a function that runs a command on the file and key of this test."""

    def run(*arguments: str, at: str | None = "hub") -> Result:
        place = ["--db", str(home / f"{at}.db"), "--key-file", str(home / f"{at}.key")] if at else []
        return CliRunner().invoke(main, [*arguments[:1], *place, *arguments[1:]])

    return run


@pytest.fixture
def made(pjais: Pjais) -> Pjais:
    """The same, where there is a Hub already."""
    assert pjais("init").exit_code == 0
    return pjais


def answer(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def error(result: Result, *, exit_code: int = 1) -> dict[str, str]:
    """Return what a failed command said in JSON: one line on standard error, nothing else."""
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    told: dict[str, dict[str, str]] = json.loads(result.stderr)
    assert set(told["error"]) == {"code", "message"}
    return told["error"]


# ------------------------------------------------------------------------------------------------- the contract


def test_every_command_of_the_contract_has_the_three_options() -> None:
    commands = [
        "demo",
        "init",
        "status",
        "import",
        "export",
        "search",
        "watch",
        "backup",
        "restore",
        "doctor",
    ]
    commands += ["invite", "join", "sync", "metrics"]
    for name in commands:
        told = CliRunner(env={"COLUMNS": "200"}).invoke(main, [name, "--help"])
        assert told.exit_code == 0
        for option in ("--db", "--key-file", "--json"):
            assert option in told.stdout, name
    assert sorted(main.commands) == sorted(commands)


def test_the_version_is_the_packages() -> None:
    assert version("pjais-sync") in CliRunner().invoke(main, ["--version"]).stdout


@pytest.mark.parametrize("name", ["backup", "restore", "doctor"])
def test_a_command_that_is_not_built_yet_says_so_with_exit_code_2(pjais: Pjais, name: str) -> None:
    assert error(pjais(name, "--json", "anything", "--at-all"), exit_code=2)["code"] == "not_available"
    told = pjais(name)
    assert told.exit_code == 2
    assert "not available yet" in told.stderr


def test_wrong_use_is_exit_code_2(pjais: Pjais) -> None:
    assert pjais("join", "only-one-argument").exit_code == 2
    assert pjais("watch", "--collection", "dreams").exit_code == 2
    assert pjais("import", str(sample_path()), "--format", "xml").exit_code == 2


# --------------------------------------------------------------------------------------------- a Hub and its key


def test_init_makes_an_encrypted_file_and_its_key(pjais: Pjais, home: Path) -> None:
    told = pjais("init")
    assert told.exit_code == 0
    assert str(home / "hub.db") in told.stdout
    assert (home / "hub.key").stat().st_mode & 0o777 == 0o600
    assert b"SQLite format 3" not in (home / "hub.db").read_bytes()


def test_init_leaves_a_file_that_is_there_as_it_is(made: Pjais, home: Path) -> None:
    before = (home / "hub.db").read_bytes()
    assert error(made("init", "--json"))["code"] == "hub_exists"
    assert (home / "hub.db").read_bytes() == before


def test_without_a_secret_store_the_error_names_the_option(pjais: Pjais, home: Path) -> None:
    told = CliRunner().invoke(main, ["init", "--json", "--db", str(home / "new.db")])
    assert error(told)["code"] == "keyring_unavailable"
    assert "--key-file" in error(told)["message"]
    assert not (home / "new.db").exists()


class Store(keyring.backend.KeyringBackend):
    """A secret store in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


@pytest.fixture
def store() -> Iterator[Store]:
    before = keyring.get_keyring()
    store = Store()
    keyring.set_keyring(store)
    yield store
    keyring.set_keyring(before)


def test_by_default_the_file_is_in_the_data_folder_and_its_key_in_the_keyring(
    home: Path, store: Store
) -> None:
    assert CliRunner().invoke(main, ["init"]).exit_code == 0
    assert default_path() == home / "data" / "pjais" / "hub.db"
    assert default_path().exists()
    assert default_path().parent.stat().st_mode & 0o777 == 0o700
    assert len(store.held) == 1
    assert answer(CliRunner().invoke(main, ["status", "--json"]))["db"] == str(default_path())


def test_the_environment_names_file_and_key(made: Pjais, home: Path) -> None:
    environment = {"PJAIS_DB": str(home / "hub.db"), "PJAIS_KEY_FILE": str(home / "hub.key")}
    told = CliRunner(env=environment).invoke(main, ["status", "--json"])
    assert answer(told)["db"] == str(home / "hub.db")


def test_a_command_makes_no_file_in_passing(pjais: Pjais, home: Path) -> None:
    for arguments in (
        ["status"],
        ["metrics"],
        ["export"],
        ["import", str(sample_path())],
        ["watch"],
        ["invite"],
        ["sync"],
    ):
        assert error(pjais(*arguments, "--json"))["code"] == "no_such_hub"
    assert not (home / "hub.db").exists()
    assert not (home / "hub.key").exists()


def test_a_wrong_key_is_told_in_one_line(made: Pjais, home: Path) -> None:
    (home / "hub.key").write_text("00" * 32)
    told = made("status")
    assert told.exit_code == 1
    assert told.stderr.startswith("pjais: ")
    assert told.stderr.count("\n") == 1
    assert error(made("status", "--json"))["code"] == "wrong_key"


def test_a_key_that_is_gone_is_not_made_anew(made: Pjais, home: Path) -> None:
    (home / "hub.key").unlink()
    assert error(made("status", "--json"))["code"] == "key_missing"
    assert not (home / "hub.key").exists()


# ------------------------------------------------------------------------------------------------ records in and out


def test_an_import_is_counted_and_shows_in_the_status(made: Pjais) -> None:
    done = answer(made("import", str(sample_path()), "--json"))
    assert done["format"] == "pjais"
    status = answer(made("status", "--json"))
    assert status["records"] == done["added"]
    assert status["space"] is None
    assert status["documents"] == sum(done["added"].values())
    assert len(status["digest"]) == 32


def test_an_import_tells_what_was_there_and_what_was_left_out(made: Pjais) -> None:
    first, again = (made("import", str(DATA / "chatgpt.json")) for _ in range(2))
    assert "imported 1 personas, 2 conversations, with 8 messages" in first.stdout
    assert "left out: 4 hidden messages" in first.stdout
    assert "imported nothing" in again.stdout
    assert "here already: 1 personas, 2 conversations" in again.stdout


def test_a_bad_file_is_told_by_place_and_problem(made: Pjais, home: Path) -> None:
    (home / "bad.json").write_text('{"format": "pjais-export",\n"version": }')
    told = error(made("import", str(home / "bad.json"), "--json"))
    assert told["code"] == "import_failed"
    assert "line 2" in told["message"]


def test_an_export_goes_to_a_file_or_to_standard_output(made: Pjais, home: Path) -> None:
    made("import", str(sample_path()))
    told = made("export")
    done = answer(made("export", str(home / "out.json"), "--json"))
    content = json.loads(told.stdout)
    assert (
        content["collections"] == json.loads((home / "out.json").read_text(encoding="utf-8"))["collections"]
    )
    assert done == {"file": str(home / "out.json"), "records": sum(map(len, content["collections"].values()))}
    assert made("export", str(home / "absent" / "out.json")).exit_code == 1


def test_an_export_has_secrets_only_when_it_is_asked_for_them(made: Pjais, home: Path) -> None:
    persona = {"id": "w", "createdAt": NOW, "updatedAt": NOW, "name": "Wren", "apiKeys": {"models": "sk-1"}}
    offered = {"format": "pjais-export", "version": 1, "collections": {"personas": [persona]}}
    (home / "in.json").write_text(json.dumps(offered))
    assert made("import", str(home / "in.json")).exit_code == 0
    assert "sk-1" not in made("export").stdout
    assert '"apiKeys":{"models":"sk-1"}' in made("export", "--with-secrets").stdout
    assert made("export", str(home / "out.json"), "--with-secrets").exit_code == 0
    assert "sk-1" in (home / "out.json").read_text()


def test_metrics_show_what_takes_up_room(made: Pjais) -> None:
    answer(made("import", str(sample_path()), "--json"))
    found = answer(made("metrics", "--json"))
    assert (
        found["collections"]["memories"]["records"] == answer(made("status", "--json"))["records"]["memories"]
    )
    assert found["collections"]["memories"]["logBytes"] > 0
    told = made("metrics")
    assert told.exit_code == 0
    assert "conversations" in told.stdout
    assert f"{found['storage']['fileBytes']:,} bytes" in told.stdout


def test_metrics_are_also_prometheus_text(made: Pjais) -> None:
    told = made("metrics", "--prometheus")
    assert told.exit_code == 0
    assert 'pjais_records{collection="personas"} 0.0\n' in told.stdout
    assert told.stdout.startswith("# HELP pjais_calls_total")


# --------------------------------------------------------------------------------------------------------- servers


def test_what_needs_a_space_says_how_to_get_one(made: Pjais) -> None:
    for name in ("invite", "sync"):
        told = error(made(name, "--json"))
        assert told["code"] == "not_registered"
        assert "pjais init --server" in told["message"]


def test_a_server_that_is_not_there_is_told_and_the_file_stays(pjais: Pjais, home: Path) -> None:
    assert error(pjais("init", "--server", NOBODY, "--json"))["code"] == "server_unreachable"
    assert answer(pjais("status", "--json"))["space"] is None


def test_a_mistyped_code_is_told_without_a_server(pjais: Pjais) -> None:
    assert error(pjais("join", NOBODY, "pjais1-NOT-A-CODE", "--json"))["code"] == "invitation_invalid"


# ------------------------------------------------------------------------------------------------ as a process


def process(home: Path, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    place = ["--db", str(home / "hub.db"), "--key-file", str(home / "hub.key")]
    return subprocess.Popen([sys.executable, "-m", "client_sdk.cli", *arguments, *place], **options)


def test_watch_ends_by_ctrl_c_with_0_and_says_nothing_more(made: Pjais, home: Path) -> None:
    with process(home, "watch", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline()) == {
            "event": "opened",
            "collection": "conversations",
            "records": 0,
        }
        watch.send_signal(signal.SIGINT)
        out, err = watch.communicate(timeout=30)
    assert (watch.returncode, out, err) == (0, b"", b"")


def test_watch_on_a_terminal_shows_a_table(made: Pjais, home: Path) -> None:
    made("import", str(sample_path()))
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    with process(
        home, "watch", "--collection", "personas", stdout=theirs, stderr=theirs, env=environment
    ) as watch:
        os.close(theirs)
        seen = b""
        while b"Wren" not in seen:
            seen += os.read(ours, 65536)
        watch.send_signal(signal.SIGINT)
        watch.wait(timeout=30)
    os.close(ours)
    assert watch.returncode == 0
    assert "10 records · on its own".encode() in seen


def test_a_reader_that_has_had_enough_ends_an_export_quietly(made: Pjais, home: Path) -> None:
    made("import", str(sample_path()))
    with process(home, "export", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        export.stdout.read(10)
        export.stdout.close()
        assert export.stderr.read() == b""
    assert export.returncode == 1


def test_help_needs_neither_a_server_nor_a_database() -> None:
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, client_sdk.cli; print([m for m in sys.modules if m.startswith('server')])",
        ],
        capture_output=True,
        check=True,
    )
    assert loaded.stdout.strip() == b"[]"


# ---------------------------------------------------------------------------------------------------------- search


def test_search_answers_with_lines_and_with_json(made: Pjais) -> None:
    assert made("import", str(sample_path())).exit_code == 0
    told = made("search", "clay", "--limit", "3")
    assert told.exit_code == 0
    assert told.stdout.count("\n") == 3
    assert "**clay**" in told.stdout
    found = answer(made("search", "--json", "clay"))
    assert found["text"] == "clay"
    kinds = {hit["collection"] for hit in found["hits"]}
    assert kinds == {"memories", "conversations"}
    for hit in found["hits"]:
        assert hit["found_by"] == ["text"]
        assert ("record" in hit) == (hit["collection"] == "memories")
        assert ("message" in hit) == ("position" in hit)


def test_search_is_narrowed_by_collection_and_persona(made: Pjais) -> None:
    assert made("import", str(sample_path())).exit_code == 0
    hits = answer(made("search", "--json", "clay", "--type", "memories", "--persona", "Hester"))["hits"]
    assert hits
    assert {hit["collection"] for hit in hits} == {"memories"}
    assert len({hit["record"]["personaId"] for hit in hits}) == 1
    assert error(made("search", "--json", "clay", "--persona", "Nobody"))["code"] == "no_such_persona"
    assert made("search", "clay", "--type", "personas", "--persona", "Hester").exit_code == 2
    assert made("search", "--json", "clay", "--type", "dreams").exit_code == 2
    nothing_of: dict[str, object] = {
        "text": "unheardof",
        "scope": "device",
        "fallback": None,
        "missing": 0,
        "hits": [],
    }
    assert answer(made("search", "--json", "unheardof")) == nothing_of
    elsewhere = answer(made("search", "--json", "unheardof", "--scope", "space"))
    assert (elsewhere["scope"], elsewhere["fallback"]["code"]) == ("device", "not_registered")
    alone = made("search", "clay", "--scope", "space").stderr
    assert "this device alone was searched: this device is in no space yet: pjais init" in alone
    assert error(made("search", "--json", "clay", "--mode", "meaning"))["code"] == "meaning_off"
    nothing = made("search", "unheardof")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "nothing found" in nothing.stderr
