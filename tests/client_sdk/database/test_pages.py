"""A wrong key, damage, and files that are something else are told apart, and left as they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_sdk.config import Config
from client_sdk.database import Database, connect_sqlcipher
from client_sdk.database.pages import PAGE_BYTES, is_page_sound, key_specification, page_key, salt_of
from client_sdk.errors import DamagedFile, FileProblem, KeyInvalid, NotADatabase, WrongKey
from tests.client_sdk.database.lines import (
    WRITER,
    add,
    count,
    fill,
    prepare_lines,
    problem_of,
    run_program,
    texts,
)

__all__: list[str] = []


async def test_a_wrong_key_is_called_one_and_changes_nothing(path: Path, key: bytes) -> None:
    await fill(path, key, 100)
    before = path.read_bytes()
    assert isinstance(await problem_of(path, bytes(32)), WrongKey)
    assert path.read_bytes() == before
    database = await Database.open(path, key)
    assert await database.read(count) == 100
    await database.close()


async def test_a_wrong_key_after_a_kill_loses_nothing_of_the_log(path: Path, key: bytes) -> None:
    process = run_program(WRITER, path, key.hex(), "FULL", "quick")
    assert process.stdout is not None
    for _ in range(10):
        known = int(process.stdout.readline())
    process.kill()
    process.communicate()
    assert path.with_name(path.name + "-wal").stat().st_size
    assert isinstance(await problem_of(path, bytes(32)), WrongKey)
    database = await Database.open(path, key)
    assert await database.read(count) >= known
    await database.close()


@pytest.mark.parametrize("count_of_bytes", [0, 31, 33, 64])
async def test_a_key_of_another_length_is_refused(path: Path, count_of_bytes: int) -> None:
    with pytest.raises(KeyInvalid, match=str(count_of_bytes)):
        await Database.open(path, b"k" * count_of_bytes)
    assert not path.exists()


@pytest.mark.parametrize("place", [16, 100, 2_000, 4_020, PAGE_BYTES - 1])
async def test_a_flipped_bit_in_the_first_page_is_damage_and_not_a_wrong_key(
    path: Path, key: bytes, place: int
) -> None:
    await fill(path, key, 100)
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    problem = await problem_of(path, key)
    assert isinstance(problem, DamagedFile)
    assert problem.pages == (1,)
    assert "damaged pages: 1)" in str(problem)
    assert path.read_bytes() == content, "it is left as it was"


async def test_flipped_bits_in_the_salt_do_no_harm(path: Path, key: bytes) -> None:
    await fill(path, key, 100)
    content = bytearray(path.read_bytes())
    content[:16] = bytes(16)
    path.write_bytes(content)
    database = await Database.open(path, key)
    assert await database.read(count) == 100
    await database.write(add("more"))
    await database.close()


async def test_a_file_of_another_tool_opens_by_its_own_salt(path: Path, key: bytes) -> None:
    connection = connect_sqlcipher(path, role="writer", config=Config())
    connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    prepare_lines(connection)
    add("from elsewhere")(connection)
    connection.close()
    assert path.read_bytes()[:16] != salt_of(key)
    database = await Database.open(path, key)
    assert await database.read(texts) == ["from elsewhere"]
    await database.close()
    assert isinstance(await problem_of(path, bytes(32)), WrongKey)


async def test_every_tool_opens_our_files_with_the_key_alone(path: Path, key: bytes) -> None:
    await fill(path, key, 3)
    connection = connect_sqlcipher(path, role="reader", config=Config())
    connection.execute(f"PRAGMA key = \"x'{key.hex()}'\"")
    assert count(connection) == 3
    connection.close()


async def test_damage_past_the_first_page_is_named_where_it_is_met(path: Path, key: bytes) -> None:
    await fill(path, key, 400)
    content = bytearray(path.read_bytes())
    content[20 * PAGE_BYTES + 77] ^= 1
    path.write_bytes(content)
    database = await Database.open(path, key)
    with pytest.raises(DamagedFile, match="malformed"):
        await database.read(texts)
    assert "HMAC verification failed for page 21" in await database.check()
    assert await database.write(add("elsewhere")) == 401, "what is sound goes on"
    with pytest.raises(DamagedFile, match="malformed"):
        await database.write(texts)
    with pytest.raises(DamagedFile, match="takes no more writes"):
        await database.write(add("no"))
    await database.close()


@given(st.data())
def test_any_bit_that_is_flipped_in_a_page_breaks_its_seal(data: st.DataObject) -> None:
    """The seal is computed here as SQLCipher does: a page that it wrote verifies."""
    key, page = sealed_page()
    authentication = page_key(key, page[:16])
    assert is_page_sound(page, 1, authentication)
    place = data.draw(st.integers(16, PAGE_BYTES - 1))
    changed = bytearray(page)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    assert not is_page_sound(bytes(changed), 1, authentication)
    assert not is_page_sound(page, 2, authentication)


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"", DamagedFile, "it is empty"),
        (b"SQLite format 3\0" + bytes(5_000), NotADatabase, "plain SQLite database"),
        (b'{"personas": []}' * 600, NotADatabase, "a text file"),
        ("é".encode() * 5_000, NotADatabase, "a text file"),
        (b"\x89PNG\r\n\x1a\n" * 2_000, NotADatabase, "not a whole number of pages"),
        (bytes(range(256)) * 4, DamagedFile, "less than its first page"),
        (bytes(range(256)) * 64, WrongKey, "none of its pages"),
    ],
    ids=["empty", "plain", "json", "prose", "picture", "short", "noise"],
)
async def test_another_file_is_called_what_it_is_and_left_alone(
    path: Path, key: bytes, content: bytes, kind: type[FileProblem], said: str
) -> None:
    path.write_bytes(content)
    problem = await problem_of(path, key)
    assert type(problem) is kind
    assert said in str(problem)
    assert path.read_bytes() == content


async def test_a_file_that_was_cut_off_is_damaged(path: Path, key: bytes) -> None:
    await fill(path, key, 100)
    path.write_bytes(path.read_bytes()[: 5 * PAGE_BYTES + 1_000])
    database: Database | None = None
    try:
        database = await Database.open(path, key)
        await database.read(texts)
    except DamagedFile:
        pass
    else:
        pytest.fail("it was read as if it were whole")
    finally:
        if database is not None:
            await database.close()


def sealed_page(cache: dict[str, tuple[bytes, bytes]] = {}) -> tuple[bytes, bytes]:  # noqa: B006 - made once
    if not cache:
        import tempfile

        key = b"k" * 32
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "notes.db"
            asyncio.run(fill(path, key, 1))
            assert key_specification(path, key).endswith(salt_of(key).hex() + "'")
            cache["page"] = key, path.read_bytes()[:PAGE_BYTES]
    return cache["page"]
