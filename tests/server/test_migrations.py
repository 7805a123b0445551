"""The schema is brought up once, whoever starts it, and stays fit to be distributed by space."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from urllib.parse import urlsplit

import asyncpg
import pytest

from server.database import Database, Migration, released_migrations
from server.embedded import EmbeddedPostgres
from server.errors import MigrationChanged, UnsupportedDatabase
from server.settings import Settings
from tests.postgres import run

__all__: list[str] = []

FIRST = Migration(1, "0001_first", "CREATE TABLE first (value integer); INSERT INTO first VALUES (1);")
SECOND = Migration(2, "0002_second", "CREATE TABLE second (value integer);")

# One record that is there and one that is deleted, a vector of each.
FOLDED = """
INSERT INTO documents (space_id, collection, record_id, position, snapshot, clocks, digest, deleted, value)
SELECT '{space}', 'c', r, 1, '', '', decode(repeat('00', 16), 'hex'), r = 'gone', '{value}'
FROM unnest(ARRAY['there', 'gone']) AS r;
INSERT INTO texts (space_id, collection, record_id, part, body) VALUES ('{space}', 'c', 'there', 0, 'x');
INSERT INTO materializations (space_id, position) VALUES ('{space}', 1);
INSERT INTO vectors (space_id, collection, record_id, part, model, dimensions, hash, scale, vector, position)
SELECT '{space}', 'c', r, 0, 'm', 1, 'h', 1, '[1]', 1 FROM unnest(ARRAY['there', 'gone']) AS r;
INSERT INTO models (space_id, model, dimensions, vectors) VALUES ('{space}', 'm', 1, 2);
"""

# Asked for before the space is known; on Citus, reference tables.
WITHOUT_SPACE = {"accounts", "challenges", "devices", "invitation_spaces", "schema_migrations", "tokens"}


async def test_migrations_are_applied_in_order_and_once(empty: Database) -> None:
    assert await empty.migrate([FIRST]) == ("0001_first",)
    assert await empty.migrate([FIRST, SECOND]) == ("0002_second",)
    assert await empty.migrate([FIRST, SECOND]) == ()
    assert await empty.pool.fetchval("SELECT count(*) FROM first") == 1


async def test_processes_that_start_together_apply_each_migration_once(
    empty: Database, empty_url: str
) -> None:
    code = (
        "import asyncio, sys\nfrom server.database import Database\nfrom server.settings import load_settings\n"
        "async def main():\n    database = await Database.connect(sys.argv[1], load_settings(pool_size_min=1))\n"
        "    print(*await database.migrate())\n    await database.close()\nasyncio.run(main())"
    )
    others = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", code, empty_url, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    here = await asyncio.gather(*(empty.migrate() for _ in range(6)))
    there = [tuple((await other.communicate())[0].decode().split()) for other in others]
    names = tuple(migration.name for migration in released_migrations())
    assert sorted([*here, *there]) == [()] * 7 + [names]
    assert await empty.pool.fetchval("SELECT count(*) FROM schema_migrations") == len(names)


async def test_an_applied_migration_that_reads_differently_is_refused(empty: Database) -> None:
    await empty.migrate([FIRST])
    edited = Migration(1, "0001_first", FIRST.sql + " ")
    with pytest.raises(
        MigrationChanged, match="0001_first was applied to this database with other contents"
    ) as refused:
        await empty.migrate([edited, SECOND])
    assert refused.value.name == "0001_first"
    assert await empty.pool.fetchval("SELECT to_regclass('second')") is None


async def test_a_database_of_a_newer_release_is_refused(empty: Database) -> None:
    await empty.migrate([FIRST, SECOND])
    with pytest.raises(
        MigrationChanged, match=r"0002_second was applied .* not in this release; start the release"
    ):
        await empty.migrate([FIRST])


async def test_a_migration_that_fails_leaves_nothing(empty: Database) -> None:
    broken = Migration(2, "0002_broken", "CREATE TABLE half (value integer); SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError):
        await empty.migrate([FIRST, broken])
    assert await empty.pool.fetchval("SELECT to_regclass('first')") is None
    assert await empty.migrate([FIRST]) == ("0001_first",)


async def test_a_user_who_may_not_install_pgvector_is_told_what_an_administrator_does(
    admin: asyncpg.Connection[asyncpg.Record], empty_url: str, server_settings: Settings
) -> None:
    await admin.execute("CREATE ROLE modest LOGIN PASSWORD 'modest'")
    await admin.execute("ALTER DATABASE empty OWNER TO modest")
    host = empty_url.split("@", 1)[1]
    database = await Database.connect(f"postgresql://modest:modest@{host}", server_settings)
    try:
        with pytest.raises(
            UnsupportedDatabase, match="let an administrator run CREATE EXTENSION vector in it"
        ):
            await database.migrate()
        administrator = await asyncpg.connect(empty_url)
        await administrator.execute("CREATE EXTENSION vector")
        await administrator.close()
        assert await database.migrate() == tuple(migration.name for migration in released_migrations())
    finally:
        await database.close()
        await admin.execute("ALTER DATABASE empty OWNER TO pjais")
        owned = await asyncpg.connect(empty_url)
        await owned.execute("DROP OWNED BY modest CASCADE")
        await owned.close()
        await admin.execute("DROP ROLE modest")


def test_the_released_migrations_are_numbered_without_gaps() -> None:
    numbers = [migration.number for migration in released_migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_migration_hashes_alike_after_a_checkout_with_other_line_ends() -> None:
    assert Migration(1, "a", "SELECT 1;\n").sha256 == Migration(1, "a", "SELECT 1;\r\n").sha256
    assert Migration(1, "a", "SELECT 1;\n").sha256 != Migration(1, "a", "SELECT 2;\n").sha256


# The schema


async def test_every_table_can_be_distributed_by_space(database: Database) -> None:
    """Its key and every unique index begin with, or hold, space_id, and no foreign key leads in or out."""
    keys = await database.pool.fetch(
        """
        SELECT c.relname AS name, i.indisprimary AS is_key,
               array_agg(a.attname::text ORDER BY array_position(i.indkey::int2[], a.attnum)) AS columns
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace s ON s.oid = c.relnamespace
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
        WHERE s.nspname = 'public' AND i.indisunique GROUP BY c.relname, i.indexrelid, i.indisprimary
        """
    )
    tables = await database.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    distributed = {row["tablename"] for row in tables} - WITHOUT_SPACE
    assert distributed >= {
        "documents",
        "invitations",
        "log",
        "materializations",
        "members",
        "quarantine",
        "refusals",
        "spaces",
        "writers",
    }
    assert {row["name"] for row in keys if row["is_key"]} == distributed | WITHOUT_SPACE
    for row in keys:
        if row["name"] in distributed:
            assert row["columns"][0] == "space_id"
    foreign = await database.pool.fetch(
        "SELECT conrelid::regclass::text AS here, confrelid::regclass::text AS there FROM pg_constraint "
        "WHERE contype = 'f'"
    )
    assert {table for row in foreign for table in row} <= WITHOUT_SPACE


async def test_spaces_in_which_somebody_speaks_are_folded_again_and_no_others(empty: Database) -> None:
    released = released_migrations()
    await empty.migrate(released[:2])
    spoken, silent = [await empty.pool.fetchval("SELECT gen_random_uuid()") for _ in range(2)]
    said = '{"messages": [{"content": "x", "metadata": {"speaker": "Anna"}}]}'
    for space, value in ((spoken, said), (silent, '{"title": "speaker"}')):
        await empty.pool.execute(FOLDED.format(space=space, value=value))
    assert await empty.migrate(released) == tuple(migration.name for migration in released[2:])
    for table in ("documents", "texts", "materializations"):
        left = await empty.pool.fetch(f"SELECT DISTINCT space_id FROM {table}")
        assert [row[0] for row in left] == [silent], table
    vectors = await empty.pool.fetch("SELECT space_id, record_id FROM vectors")
    assert {tuple(row) for row in vectors} == {(spoken, "there"), (spoken, "gone"), (silent, "there")}
    models = await empty.pool.fetch("SELECT space_id, vectors FROM models")
    assert {tuple(row) for row in models} == {(spoken, 2), (silent, 1)}


async def test_a_new_space_is_empty(database: Database) -> None:
    row = await database.pool.fetchrow(
        "INSERT INTO spaces (space_id, account_id, generation) VALUES (gen_random_uuid(), gen_random_uuid(), "
        "gen_random_uuid()) RETURNING space_id, head"
    )
    assert row is not None
    assert row["head"] == 0
    folded = await database.pool.fetchrow(
        "INSERT INTO materializations (space_id) VALUES ($1) RETURNING position, digest, records",
        row["space_id"],
    )
    assert folded is not None
    assert tuple(folded) == (0, bytes(16), 0)


async def test_two_spaces_may_hold_the_same_client_id_and_one_space_may_not(database: Database) -> None:
    insert = "INSERT INTO writers (space_id, client_id, device_id, incarnation) VALUES ($1, 7, gen_random_uuid(), 1)"
    one, two = [await database.pool.fetchval("SELECT gen_random_uuid()") for _ in range(2)]
    await database.pool.execute(insert, one)
    await database.pool.execute(insert, two)
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.pool.execute(insert, one)


def test_the_fixture_gives_every_test_a_database_of_its_own(
    database_url: str, postgres: EmbeddedPostgres
) -> None:
    async def names() -> list[str]:
        connection = await asyncpg.connect(database_url)
        rows = await connection.fetch(
            "SELECT current_database() AS name, (SELECT count(*) FROM spaces) AS spaces"
        )
        await connection.close()
        return [row["name"] for row in rows if row["spaces"] == 0]

    assert run(names()) == [urlsplit(database_url).path[1:]]
    assert postgres.pid is not None
