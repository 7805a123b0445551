"""What is used of ``cryptography`` comes from there, and not before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag

from client_sdk import primitives

__all__: list[str] = []

_PROGRAM = """
import asyncio, sys
import client_sdk

class Note(client_sdk.Record, collection="notes", searchable=["title"]):
    title: str

async def main():
    async with client_sdk.open(sys.argv[1], records=[Note], key=bytes(range(32))) as client:
        await client.collection(Note).insert(Note(title="tea"))
        assert await client.collection(Note).search("tea", mode="text")

asyncio.run(main())
assert "cryptography" not in sys.modules
"""


def test_a_device_that_seals_nothing_and_meets_nobody_does_without(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _PROGRAM, str(tmp_path / "a.db")], check=True, timeout=60)


def test_each_name_is_the_packages_own() -> None:
    assert {
        name: getattr(primitives, name).__module__.partition(".")[0] for name in primitives.__all__
    } == dict.fromkeys(primitives.__all__, "cryptography")
    assert primitives.InvalidTag is InvalidTag
    with pytest.raises(AttributeError, match="'AES'"):
        _ = primitives.AES
