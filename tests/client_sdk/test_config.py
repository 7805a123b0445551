"""Options have bounds, and are in force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from client_sdk.config import Config
from client_sdk.database import Connection, Database

__all__: list[str] = []


@pytest.mark.parametrize(
    "options",
    [{"readers": 0}, {"cache_bytes": 1}, {"wal_pages": 0}, {"synchronous": "OFF"}, {"inline": "yes"}],
    ids=str,
)
def test_an_option_out_of_its_bounds_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Config(**options)


async def test_the_options_are_in_force(path: Path, key: bytes) -> None:
    database = await Database.open(path, key, config=Config(synchronous="NORMAL", cache_bytes=8 << 20))
    wanted = {
        "journal_mode": "wal",
        "synchronous": 1,
        "foreign_keys": 1,
        "temp_store": 2,
        "mmap_size": 0,
        "cache_size": -8192,
        "busy_timeout": 5_000,
        "cipher_page_size": "4096",
    }

    def options(connection: Connection) -> dict[str, Any]:
        return {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted}

    assert await database.maintain(options) == wanted
    assert (await database.read(lambda connection: connection.execute("PRAGMA query_only").fetchone())) == (
        1,
    )
    await database.close()
