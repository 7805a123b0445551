"""A notice tells what a commit touched, and whoever has missed one knows that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from client_sdk.config import Config
from client_sdk.database import Connection, connect_sqlcipher
from client_sdk.materialize import Change
from client_sdk.notices import SCHEMA, Heard, Notice, Numbers, hear, leave

__all__: list[str] = []

US, THEM = 1, 2


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    connection = connect_sqlcipher(tmp_path / "a.db", role="writer", config=Config())
    connection.execute("CREATE TABLE pjais_state(commits INTEGER)")
    connection.execute("CREATE TABLE pjais_outbox(position INTEGER)")
    connection.execute("INSERT INTO pjais_state VALUES (0)")
    for statement in SCHEMA:
        connection.execute(statement)
    yield connection
    connection.close()


def commit(
    connection: Connection, *, instance: int = THEM, docs: list[int] | None = None, changes: int = 0
) -> int:
    """Leave the notice of one more commit; return its number."""
    (number,) = connection.execute(
        "UPDATE pjais_state SET commits = commits + 1 RETURNING commits"
    ).fetchone()
    leave(
        connection,
        number,
        instance=instance,
        numbers=Numbers(number + 10, number + 100, number),
        docs=docs,
        changes=[Change("notes", str(n), "updated", n, frozenset({"title"})) for n in range(changes)],
    )
    return int(number)


def test_what_was_left_is_heard_once_and_in_order(connection: Connection) -> None:
    assert hear(connection, after=0) is None
    commit(connection, docs=[3, 4], changes=2)
    commit(connection, docs=[4, 5])
    heard = hear(connection, after=0)
    assert heard is not None
    assert (heard.through, heard.pending, heard.numbers) == (2, 2, Numbers(12, 102, 2))
    assert heard.docs == {3, 4, 5}
    assert heard.notices is not None
    assert heard.notices[0].changes == [
        Change("notes", "0", "updated", 0, frozenset({"title"})),
        Change("notes", "1", "updated", 1, frozenset({"title"})),
    ]
    assert heard.notices[1] == Notice(Numbers(12, 102, 2), [4, 5], [], [])
    assert hear(connection, after=2) is None


def test_it_ends_before_a_notice_of_ones_own_so_that_all_are_told_in_order(connection: Connection) -> None:
    commit(connection, docs=[1])
    commit(connection, docs=[2], instance=US)
    commit(connection, docs=[3])
    heard = hear(connection, after=0, before=US)
    assert heard is not None
    assert (heard.through, heard.docs) == (1, {1})
    assert hear(connection, after=1, before=US) is None
    heard = hear(connection, after=2, before=US)
    assert heard is not None
    assert (heard.through, heard.docs) == (3, {3})


@pytest.mark.parametrize("docs", [None, list(range(1_000))], ids=["unknown", "too many"])
def test_documents_that_are_not_named_may_be_any(connection: Connection, docs: list[int] | None) -> None:
    commit(connection, docs=[1])
    commit(connection, docs=docs, changes=1_000)
    heard = hear(connection, after=0)
    assert heard is not None
    assert heard.docs is None
    assert heard.notices is not None
    assert (heard.notices[1].changes, heard.notices[1].collections) == (None, ["notes"])


def test_whoever_missed_a_notice_knows_only_how_much_is_pending(connection: Connection) -> None:
    connection.execute("INSERT INTO pjais_outbox VALUES (1), (2)")
    for _ in range(400):
        commit(connection, docs=[1])
    assert hear(connection, after=0) == Heard(400, 2, None)
    recent = hear(connection, after=300)
    assert recent is not None
    assert (recent.through, recent.docs) == (400, {1})
    (kept,) = connection.execute("SELECT count(*) FROM pjais_notices").fetchone()
    assert kept <= 320


def test_a_commit_that_left_none_makes_all_before_it_unknown(connection: Connection) -> None:
    commit(connection, docs=[1])
    connection.execute("UPDATE pjais_state SET commits = 2")
    assert hear(connection, after=0) == Heard(2, 0, None)
    commit(connection, docs=[1])
    for after in (0, 1):
        assert hear(connection, after=after) == Heard(3, 0, None)
