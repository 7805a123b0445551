"""What is deleted is gone from search at once, and its vectors with it; what may be restored keeps them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from crdt.changes import InsertItems, Operation, RemoveItems, SetRegister
from crdt.contents import DELETED
from crdt.document import Document
from crdt.values import encode_value
from server import vectors
from server.database import Database
from server.materialize.batch import fold_anew, fold_spaces
from server.materialize.folding import Folding
from server.materialize.follow import Follower
from server.materialize.sweep import sweep
from server.search import Answer, Question, search
from server.vectors import Model, Vector
from tests.server.people import eventually
from tests.server.test_materialize import MEMORY_BYTES, Space, catch_up, creation, following
from tests.server.test_vectors import vector

__all__: list[str] = []

MADE = creation(7, title="a bike")


class Talk:
    """A record that a device edits: each call returns the next update."""

    def __init__(self, *updates: bytes) -> None:
        self._document = Document.load(None, list(updates), client=8)
        self._reading = 1 << 41

    def edit(self, *operations: Operation) -> bytes:
        self._reading += 1
        touched = SetRegister("updatedAt", encode_value(self._reading))
        return self._document.edit([touched, *operations], reading=self._reading)[0]

    def delete(self, *, deleted: bool = True) -> bytes:
        return self.edit(SetRegister(DELETED, encode_value(deleted)))

    def say(self, place: int, *said: str) -> bytes:
        items = tuple(encode_value({"content": text}) for text in said)
        return self.edit(InsertItems("messages", place, items))

    def unsay(self, place: int, count: int = 1) -> bytes:
        return self.edit(RemoveItems("messages", place, count))


class Searched(Space):
    """A space with vectors."""

    async def put(self, *sent: Vector) -> int:
        placed = await self.database.transaction(lambda connection: vectors.put(connection, self.id, sent))
        return placed.head

    async def vectors(self) -> list[tuple[str, int]]:
        """Places that have a vector, and the count that is kept of them is right."""
        async with (
            self.database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            held = (await vectors.after(connection, self.id, 0)).vectors
            models = await vectors.models(connection, self.id)
        assert sum(model.vectors for model in models) == len(held)
        assert all(model.vectors for model in models)
        return sorted((one.vector.record_id, one.vector.part) for one in held)

    async def found(self) -> list[tuple[str, int]]:
        question = Question(text="bike", vector=[1.0, 2.0], model="small")
        answers: list[Answer] = [
            await search(self.database.connection, self.id, question, mode=mode)
            for mode in ("meaning", "hybrid")
        ]
        one, other = (sorted((hit.record_id, hit.part) for hit in answer.hits) for answer in answers)
        assert one == other
        return one


@pytest.fixture
def space(database: Database) -> Searched:
    return Searched(database)


@pytest.fixture
async def folding() -> AsyncIterator[Folding]:
    folding = Folding(memory_bytes_max=MEMORY_BYTES)
    yield folding
    await folding.close()


async def test_a_deleted_record_is_gone_with_its_vectors_and_a_restored_one_gets_them_again(
    space: Searched, database: Database, folding: Folding
) -> None:
    talk = Talk(MADE)
    await space.write(("a", 7, MADE), ("b", 7, creation(7, title="bikes")))
    await catch_up(database, folding)
    assert await space.put(vector("a", 1, 2), vector("a", 1, 2, 3, model="other"), vector("b", 1, 2)) == 3
    assert await space.found() == [("a", -1), ("b", -1)]
    await space.write(("a", 8, talk.delete()))
    await catch_up(database, folding)
    assert await space.found() == [("b", -1)]
    assert await space.vectors() == [("b", -1)]
    async with database.connection() as connection:
        assert await vectors.models(connection, space.id) == [Model("small", 2, 1)]
    assert await space.put(vector("a", 1, 2)) == 3, "none of a deleted record is kept"
    assert await space.vectors() == [("b", -1)]
    await space.write(("a", 8, talk.delete(deleted=False)))
    assert await space.put(vector("a", 1, 2)) == 4, "that it is restored may not be folded yet"
    await catch_up(database, folding)
    assert await space.vectors() == [("a", -1), ("b", -1)]
    assert await space.found() == [("a", -1), ("b", -1)]


async def test_vectors_of_a_space_alone_are_touched_by_its_deletions(
    space: Searched, database: Database, folding: Folding
) -> None:
    other = Searched(database)
    for one in (space, other):
        await one.write(("a", 7, MADE))
        await one.put(vector("a", 1, 2))
    await space.write(("a", 8, Talk(MADE).delete()))
    await catch_up(database, folding)
    assert (await space.vectors(), await other.vectors()) == ([], [("a", -1)])
    assert (await space.found(), await other.found()) == ([], [("a", -1)])


async def test_a_vector_that_comes_before_its_record_is_kept_and_found_when_that_is_folded(
    space: Searched, database: Database, folding: Folding
) -> None:
    await space.write(("z", 7, creation(7, title="tea")))
    await space.put(vector("a", 1, 2))
    assert await space.found() == []
    await space.write(("a", 7, MADE))
    await catch_up(database, folding)
    assert await space.found() == [("a", -1)]


async def test_a_part_that_has_no_text_any_more_loses_its_vector(
    space: Searched, database: Database, folding: Folding
) -> None:
    talk = Talk(MADE)
    await space.write(("a", 7, MADE), ("a", 8, talk.say(0, "a bike", "two bikes", "three bikes")))
    await catch_up(database, folding)
    await space.put(*(vector("a", 1, 2, part=part) for part in range(-1, 3)))
    assert await space.found() == [("a", -1), ("a", 0), ("a", 1), ("a", 2)]
    await space.write(("a", 8, talk.unsay(1)))
    await catch_up(database, folding)
    assert await space.vectors() == [("a", -1), ("a", 0), ("a", 1)]
    assert await space.found() == [("a", -1), ("a", 0), ("a", 1)]


async def test_a_turn_that_sees_a_record_deleted_and_not_yet_restored_decides_nothing(
    space: Searched, database: Database, folding: Folding
) -> None:
    talk = Talk(MADE)
    await space.write(("a", 7, MADE), ("a", 8, talk.delete()), ("a", 8, talk.delete(deleted=False)))
    await space.put(vector("a", 1, 2))
    async with database.connection() as connection:
        await fold_spaces(connection, folding, [space.id], rows_max={space.id: 2})
    assert (await space.documents())["a"]["deleted"]
    assert await space.vectors() == [("a", -1)]
    await catch_up(database, folding)
    assert await space.found() == [("a", -1)]


async def test_folding_anew_keeps_the_vectors_of_what_is_there_and_drops_the_others(
    space: Searched, database: Database, folding: Folding
) -> None:
    await space.write(("a", 7, MADE), ("b", 7, MADE), ("b", 8, Talk(MADE).delete()))
    await space.put(vector("a", 1, 2), vector("b", 1, 2))
    async with database.connection() as connection:
        await fold_anew(connection, folding, space.id)
    await sweep(database)
    assert await space.vectors() == [("a", -1)]
    assert await space.put(vector("c", 1, 2)) == 3, "positions are not given again"


@asynccontextmanager
async def sending(space: Searched, *sent: Vector) -> AsyncIterator[None]:
    """Vectors on their way, by somebody slow: the space's are held until they are there."""
    async with space.database.connection() as slow, slow.transaction():
        await vectors.put(slow, space.id, sent)
        yield


async def test_a_vector_sent_while_its_record_is_being_deleted_does_not_stay(
    space: Searched, database: Database, folding: Folding
) -> None:
    """Whoever removes waits for whoever sends, and the other way round: one of the two sees what the other did."""
    await space.write(("a", 7, MADE))
    await catch_up(database, folding)
    await space.write(("a", 8, Talk(MADE).delete()))
    async with sending(space, vector("a", 1, 2)):
        await catch_up(database, folding)
        assert (await space.documents())["a"]["deleted"]
    assert await space.vectors() == [("a", -1)]
    assert await space.found() == []
    await sweep(database)
    assert await space.vectors() == []


async def test_whoever_holds_the_vectors_of_a_space_holds_up_no_folding_and_no_other_space(
    space: Searched, database: Database, folding: Folding
) -> None:
    other = Searched(database)
    for one in (space, other):
        await one.write(("a", 7, MADE), ("b", 7, MADE))
        await one.put(vector("a", 1, 2), vector("b", 1, 2))
    await catch_up(database, folding)
    for one in (space, other):
        await one.write(("a", 8, Talk(MADE).delete()))
    async with sending(space, vector("c", 1, 2)):
        async with asyncio.timeout(5):  # a statement waits ten seconds for a lock
            await catch_up(database, folding)
        assert (await space.found(), await other.found()) == ([("b", -1)], [("b", -1)])
        assert await other.vectors() == [("b", -1)]
    await sweep(database)
    assert await space.vectors() == [("b", -1), ("c", -1)]


async def test_what_a_process_that_died_has_left_is_removed_by_the_next(
    space: Searched, database: Database, folding: Folding
) -> None:
    await space.write(("a", 7, MADE))
    await catch_up(database, folding)
    await space.put(vector("a", 1, 2))
    await space.write(("a", 8, Talk(MADE).delete()))
    async with database.connection() as connection:
        await fold_spaces(connection, folding, [space.id])
    assert await space.vectors() == [("a", -1)], "it died between the fold and the sweep"
    assert await space.found() == []

    async def is_gone() -> bool:
        return await space.vectors() == []

    async with following(Follower(database, folding)):
        await eventually(is_gone)


async def test_what_is_restored_before_it_was_removed_keeps_its_vectors(
    space: Searched, database: Database, folding: Folding
) -> None:
    talk = Talk(MADE)
    await space.write(("a", 7, MADE), ("a", 8, talk.say(0, "a bike", "two bikes")))
    await catch_up(database, folding)
    await space.put(*(vector("a", 1, 2, part=part) for part in range(-1, 2)))
    for update, again in (
        (talk.delete(), talk.delete(deleted=False)),
        (talk.unsay(1), talk.say(1, "two bikes again")),
    ):
        await space.write(("a", 8, update))
        async with database.connection() as connection:
            await fold_spaces(connection, folding, [space.id])
        await space.write(("a", 8, again))
        await sweep(database)  # nothing is decided
        await catch_up(database, folding)
        assert await space.vectors() == [("a", -1), ("a", 0), ("a", 1)]
    assert await database.pool.fetchval("SELECT count(*) FROM vectors_gone") == 0


async def test_many_deletions_at_once_are_one_turn(
    space: Searched, database: Database, folding: Folding
) -> None:
    records = [f"r{n}" for n in range(500)]
    await space.write(*((record, 7, MADE) for record in records))
    await catch_up(database, folding)
    await space.put(*(vector(record, 1, 2) for record in records))
    await space.write(*((record, 8, Talk(MADE).delete()) for record in records[1:]))
    await catch_up(database, folding)
    assert await space.vectors() == [("r0", -1)]
