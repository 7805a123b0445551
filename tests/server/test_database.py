"""The database refuses what is unsafe, retries what conflicted, and is migrated once, whoever starts it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from server.database import Connection, Database, check_supported
from server.embedded import EmbeddedPostgres, binaries
from server.errors import DatabaseUnavailable, UnsafeDatabase, UnsupportedDatabase
from server.settings import Settings, load_settings
from tests.postgres import with_database

__all__: list[str] = []


@pytest.fixture
def impatient() -> Settings:
    return load_settings(connect_timeout_s=0.2, pool_size_min=1)


@pytest.fixture
def installation(open_folder: Path) -> binaries.Binaries:
    """An installation of Postgres of this test's own."""
    return binaries._copied(binaries.find_binaries(), open_folder / "installation")


# Connecting


async def test_where_nothing_listens_the_address_and_what_to_do_are_told(impatient: Settings) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(
        DatabaseUnavailable, match=rf"no Postgres at 127.0.0.1:{port}: .*; start Postgres"
    ) as refused:
        await Database.connect(f"postgresql://me:hunter2@127.0.0.1:{port}/db", impatient)
    assert refused.value.address == f"127.0.0.1:{port}"
    assert "hunter2" not in str(refused.value)


async def test_a_name_that_leads_nowhere_is_told(impatient: Settings) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"no Postgres at no-such-host.invalid:5432"):
        await Database.connect("postgresql://me@no-such-host.invalid/db", impatient)


async def test_a_host_that_accepts_and_says_nothing_is_given_up(impatient: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://me@127.0.0.1:{mute.getsockname()[1]}/db"
        with pytest.raises(DatabaseUnavailable, match="a firewall stands between"):
            await Database.connect(url, impatient)


async def test_a_url_that_cannot_be_read_is_told(impatient: Settings) -> None:
    with pytest.raises(DatabaseUnavailable):
        await Database.connect("postgresql://me@host:port/db", impatient)


async def test_a_wrong_password_and_a_missing_database_are_told_apart(
    postgres: EmbeddedPostgres, impatient: Settings
) -> None:
    with pytest.raises(DatabaseUnavailable, match="correct the user and password"):
        await Database.connect(postgres.url.replace("pjais:", "pjais:x"), impatient)
    with pytest.raises(DatabaseUnavailable, match="create that database, or correct its name"):
        await Database.connect(with_database(postgres.url, "nowhere"), impatient)


async def test_a_postgres_that_is_only_just_starting_is_waited_for(
    postgres: EmbeddedPostgres, server_settings: Settings
) -> None:
    """As when both are started together: at first nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target = urlsplit(postgres.url).port
    waiting = asyncio.create_task(
        Database.connect(postgres.url.replace(f":{target}/", f":{port}/"), server_settings)
    )
    refused = 0
    while refused < 3:  # it was refused for a while
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        refused += 1
        await asyncio.sleep(0)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", port):
        database = await waiting
        assert await database.pool.fetchval("SELECT 1") == 1
        await database.close()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_a_postgres_that_could_lose_what_it_acknowledged_is_refused(
    cluster_folder: Path, server_settings: Settings, setting: str
) -> None:
    async with EmbeddedPostgres(cluster_folder, options={setting: "off"}) as unsafe:
        with pytest.raises(
            UnsafeDatabase, match=f"runs with {setting} = off, .* set {setting} = on"
        ) as refused:
            await Database.connect(unsafe.url, server_settings)
    assert refused.value.setting == setting


async def test_a_database_that_acknowledges_before_it_flushes_is_refused(
    admin: asyncpg.Connection[asyncpg.Record], empty_url: str, server_settings: Settings
) -> None:
    await admin.execute("ALTER DATABASE empty SET synchronous_commit = off")
    with pytest.raises(UnsafeDatabase, match="synchronous_commit"):
        await Database.connect(empty_url, server_settings)


async def test_a_postgres_without_pgvector_is_refused(
    cluster_folder: Path, installation: binaries.Binaries, server_settings: Settings
) -> None:
    (installation.folder / "share/postgresql/extension/vector.control").unlink()
    async with EmbeddedPostgres(cluster_folder, binaries=installation) as without:
        with pytest.raises(
            UnsupportedDatabase, match=r"Postgres has no pgvector; install pgvector 0\.8 or newer"
        ):
            await Database.connect(without.url, server_settings)


async def test_a_postgres_with_an_old_pgvector_is_refused(
    cluster_folder: Path, installation: binaries.Binaries, server_settings: Settings
) -> None:
    extensions = installation.folder / "share/postgresql/extension"
    (extensions / "vector.control").write_text(
        "default_version = '0.7.4'\nmodule_pathname = '$libdir/vector'\n"
    )
    (extensions / "vector--0.7.4.sql").write_text("SELECT 1;\n")
    async with EmbeddedPostgres(cluster_folder, binaries=installation) as old:
        with pytest.raises(UnsupportedDatabase, match=r"pgvector is version 0\.7\.4; install 0\.8 or newer"):
            await Database.connect(old.url, server_settings)


@pytest.mark.parametrize(
    ("postgres_version", "vector_version", "told"),
    [
        (140_012, "0.8.0", "Postgres is version 14; upgrade it to 15"),
        (90_624, "0.8.0", "Postgres is version 9; upgrade it to 15"),
        (160_004, "0.7.4", "pgvector is version 0.7.4"),
        (160_004, None, "package postgresql-16-pgvector"),
    ],
)
def test_what_is_too_old_is_named_with_its_remedy(
    postgres_version: int, vector_version: str | None, told: str
) -> None:
    with pytest.raises(UnsupportedDatabase, match=told):
        check_supported(postgres_version, vector_version)


@pytest.mark.parametrize(
    ("postgres_version", "vector_version"), [(150_000, "0.8.0"), (180_004, "0.10"), (190_000, "1.0.1")]
)
def test_what_is_new_enough_is_taken(postgres_version: int, vector_version: str) -> None:
    check_supported(postgres_version, vector_version)


async def test_every_connection_has_its_timeouts_and_name(database_url: str) -> None:
    settings = load_settings(
        statement_timeout_ms=1_234,
        lock_timeout_ms=2_345,
        idle_in_transaction_timeout_ms=3_456,
        pool_size_min=1,
    )
    database = await Database.connect(database_url, settings, application="a name")
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name")
    found = [await database.pool.fetchval("SELECT current_setting($1)", name) for name in names]
    assert found == ["1234ms", "2345ms", "3456ms", "a name"]
    with pytest.raises(asyncpg.QueryCanceledError):
        await database.pool.execute("SELECT pg_sleep(60)")
    await database.close()


# Transactions


async def test_work_is_committed_and_its_result_returned(database: Database) -> None:
    async def work(connection: Connection) -> str:
        await connection.execute("CREATE TABLE kept (value integer)")
        return "done"

    assert await database.transaction(work) == "done"
    assert await database.pool.fetchval("SELECT count(*) FROM kept") == 0


async def test_work_that_fails_leaves_nothing_and_its_error_comes_through(database: Database) -> None:
    await database.pool.execute("CREATE TABLE kept (value integer)")

    async def work(connection: Connection) -> None:
        await connection.execute("INSERT INTO kept VALUES (1)")
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        await database.transaction(work)
    assert await database.pool.fetchval("SELECT count(*) FROM kept") == 0


async def test_a_deadlock_ends_with_both_done(database: Database) -> None:
    """Two transactions lock two rows in opposite order, at the same time: one is done again as a whole."""
    await database.pool.execute("CREATE TABLE rows (id integer PRIMARY KEY, value integer DEFAULT 0)")
    await database.pool.execute("INSERT INTO rows VALUES (1), (2)")
    met = asyncio.Barrier(2)
    tries = 0

    async def work(first: int, second: int, connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("UPDATE rows SET value = value + 1 WHERE id = $1", first)
        if tries <= 2:
            await met.wait()
        await connection.execute("UPDATE rows SET value = value + 1 WHERE id = $1", second)

    await asyncio.gather(
        database.transaction(lambda connection: work(1, 2, connection)),
        database.transaction(lambda connection: work(2, 1, connection)),
    )
    assert tries == 3
    assert [row["value"] for row in await database.pool.fetch("SELECT value FROM rows")] == [2, 2]


async def test_a_conflict_that_does_not_end_is_told_after_the_last_retry(database: Database) -> None:
    tries = 0

    async def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    with pytest.raises(asyncpg.SerializationError):
        await database.transaction(work, retries=2)
    assert tries == 3


async def test_a_connection_that_is_cut_is_unavailable_and_the_next_one_works(database: Database) -> None:
    async def cut(connection: Connection) -> None:
        await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    async def cut_unseen(connection: Connection) -> None:
        connection.terminate()
        await connection.execute("SELECT 1")

    for work in (cut, cut_unseen):
        with pytest.raises(DatabaseUnavailable, match=r"no Postgres at 127\.0\.0\.1:"):
            await database.transaction(work)
        assert await database.pool.fetchval("SELECT 1") == 1


async def test_a_pool_that_is_used_up_says_so(database_url: str) -> None:
    database = await Database.connect(
        database_url, load_settings(pool_size_min=1, pool_size_max=1, pool_wait_s=0.05)
    )
    async with database.connection():
        with pytest.raises(DatabaseUnavailable, match="raise PJAIS_POOL_SIZE_MAX"):
            async with database.connection():
                pass
    await database.close()


async def test_a_pool_outlives_a_restart_of_postgres(cluster_folder: Path, server_settings: Settings) -> None:
    postgres = EmbeddedPostgres(cluster_folder)
    database = await Database.connect(await postgres.start(), server_settings)
    await postgres.stop()

    async def work(connection: Connection) -> object:
        return await connection.fetchval("SELECT 1")

    with pytest.raises(DatabaseUnavailable):
        await database.transaction(work)
    with pytest.raises(DatabaseUnavailable):
        await database.listener()
    await postgres.start()
    assert await database.transaction(work) == 1
    await database.close()
    await postgres.stop()


async def test_a_listener_is_outside_the_pool_and_hears(database: Database) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    listener = await database.listener()
    await listener.add_listener(
        "news", lambda _connection, _pid, _channel, payload: heard.put_nowait(payload)
    )
    await database.pool.execute("SELECT pg_notify('news', 'something')")
    assert await asyncio.wait_for(heard.get(), 10) == "something"
    await listener.close()
