"""What takes up room is worked out close to what SQLite itself would tell, and adds up to the pages in use."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from client_sdk.database import Connection
from client_sdk.sizes import FileSizes, Sizes, file_sizes, measure_sizes
from tests.client_sdk.device import open_device
from tests.client_sdk.records import Line, Note, Tag

__all__: list[str] = []

LOG = ("pjais_log", "pjais_documents", "pjais_snapshots", "pjais_outbox", "pjais_quarantine")


def told_by_sqlite(path: Path) -> Counter[str]:
    """Return the bytes of each part, from the ``dbstat`` of the Python's own SQLite, on a copy in plain text."""
    plain = sqlite3.connect(path)
    try:
        owners = {
            name: (table, kind)
            for name, table, kind in plain.execute("SELECT name, tbl_name, type FROM sqlite_schema")
        }
        told: Counter[str] = Counter()
        for name, size in plain.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY 1"):
            table, kind = owners.get(name, ("", ""))
            if table in LOG:
                told["log"] += size
            elif table.startswith("pjais_text_"):
                told[f"{table.removeprefix('pjais_text_').partition('_')[0]} index"] += size
            elif table.startswith(("notes", "tags")):
                told[f"{table.partition('__')[0]} {'index' if kind == 'index' else 'data'}"] += size
        return told
    except sqlite3.OperationalError as error:
        pytest.skip(f"this Python's SQLite does not tell: {error}")
    finally:
        plain.close()


async def test_sizes_are_within_a_quarter_of_what_sqlite_tells(tmp_path: Path) -> None:
    chance = random.Random(1)

    def words(most: int) -> str:
        return "".join(chance.choices("abcdefghij", k=chance.randrange(most)))

    def copy(connection: Connection) -> None:
        connection.execute(f"ATTACH '{tmp_path}/plain.db' AS plain KEY ''")
        connection.execute("SELECT sqlcipher_export('plain')")
        connection.execute("DETACH plain")

    async with open_device(tmp_path / "a.db") as client:
        notes = [
            Note(
                title=words(80), body=words(900), lines=[Line(id=str(n)) for n in range(chance.randrange(5))]
            )
            for _ in range(2_500)
        ]
        await client.collection(Note).insert_many(notes)
        await client.collection(Tag).insert_many([Tag(name=words(40)) for _ in range(2_500)])
        database = client._writer.database
        sizes = await database.read(lambda connection: measure_sizes(connection, ["notes", "tags"]))
        await database.maintain(copy)
    true = told_by_sqlite(tmp_path / "plain.db")
    found = {
        f"{name} {part}": size
        for name, one in sizes.collections.items()
        for part, size in (("data", one.data_bytes), ("index", one.index_bytes))
    }
    found["log"] = sum(one.log_bytes for one in sizes.collections.values())
    assert found == pytest.approx(dict(true), rel=0.25)


async def test_they_add_up_to_the_pages_in_use(tmp_path: Path) -> None:
    async with open_device(tmp_path / "a.db") as client:
        notes = client.collection(Note)
        made = await notes.insert_many([Note(title="a", body="word " * 100) for _ in range(40)])
        for note in made[:20]:
            await notes.delete(note.id)

        def work(connection: Connection) -> tuple[Sizes, int]:
            pages = int(connection.execute("PRAGMA page_count").fetchone()[0])
            return measure_sizes(connection, ["notes", "tags"]), 4_096 * pages

        sizes, total = await client._writer.database.read(work)
    held = sum(one.data_bytes + one.index_bytes + one.log_bytes for one in sizes.collections.values())
    assert held + sizes.other_bytes + sizes.free_bytes == total
    assert 0 < sizes.other_bytes < total / 50
    assert sizes.collections["notes"].data_bytes > sizes.collections["tags"].data_bytes
    assert sizes.collections["tags"].log_bytes == 0


def test_a_file_that_is_not_there_has_no_bytes(tmp_path: Path) -> None:
    assert file_sizes(tmp_path / "none.db") == FileSizes(0, 0, file_sizes(tmp_path).disk_free_bytes)
