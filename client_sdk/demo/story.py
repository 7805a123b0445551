"""The story: two encrypted devices and a server; apart, edited in ways that meet, and equal again.

`story` yields a step when it is done, so that it can be shown while the next one runs. Everything is real: the server
is a process with a Postgres, the devices are two encrypted files, and what they do goes over a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Final

import msgspec

from client_sdk.demo.meetings import Doomed, Meeting, meetings
from client_sdk.demo.server import running_server
from client_sdk.demo.steps import Check, Step, Table
from client_sdk.hub import Hub, sample_path
from client_sdk.keys import KeyFile
from client_sdk.transfer import import_file

__all__ = ["story"]

_SYNC_S_MAX: Final = 60.0
_FOUND_S_MAX: Final = 10.0
_QUESTION: Final = "jogging made a leg hurt"
_ANSWER: Final = (
    "The left knee, after Stoodley Pike"  # "Pain below the kneecap on the descent of a short fell race …"
)
_PHRASE: Final = b"Withens Moss"  # stands in the sample's memories: it must not stand in a file


async def story(folder: Path, *, laptop_path: Path, laptop_key: Path) -> AsyncGenerator[Step, None]:
    """Run the demo in an empty folder; yield each step when it is done.

    Raises:
        DemoProblem: it cannot begin. Other `ClientError`s: something did not go as it must.
    """
    phone_path, phone_key = folder / "phone.db", folder / "phone.key"
    async with contextlib.AsyncExitStack() as stack:
        began = time.perf_counter()
        url = await stack.enter_async_context(running_server(folder / "server"))
        yield Step("server", f"a server on {url}, with a Postgres of its own", _since(began))

        began = time.perf_counter()
        laptop = await stack.enter_async_context(Hub.open(laptop_path, key=KeyFile(laptop_key)))
        phone = await stack.enter_async_context(Hub.open(phone_path, key=KeyFile(phone_key)))
        yield Step("devices", "two new devices, laptop and phone, each an encrypted file", _since(began))

        began = time.perf_counter()
        imported = await import_file(laptop, sample_path())
        yield Step(
            "import",
            f"the sample is imported on the laptop, with {imported.messages} messages",
            _since(began),
            await _held(laptop, phone),
            [await _encrypted("the laptop's file gives nothing away", laptop_path)],
        )

        began = time.perf_counter()
        await laptop.client.register(url)
        await laptop.client.synced(timeout=_SYNC_S_MAX)
        await phone.client.join(url, await laptop.client.invite())
        await phone.client.synced(timeout=_SYNC_S_MAX)
        yield Step(
            "join",
            "the laptop makes a space and invites; the phone joins, and fetches everything",
            _since(began),
            await _held(laptop, phone),
            [
                *await _equal(laptop, phone),
                await _encrypted("the phone's file gives nothing away", phone_path),
            ],
        )

        began = time.perf_counter()
        await laptop.client.disconnect()
        await phone.client.disconnect()
        met, doomed = await meetings(laptop)
        await _edit_apart(met, doomed, laptop, phone)
        rows = [(meeting.what, meeting.before, meeting.laptop, meeting.phone) for meeting in met]
        rows.append(("a memory", doomed.name, "deletes it", "sets its importance to 99"))
        pending = [hub.client.status.pending for hub in (laptop, phone)]
        yield Step(
            "apart",
            f"both are offline and edited: {pending[0]} updates wait on the laptop, {pending[1]} on the phone",
            _since(began),
            Table(("what", "before", "laptop", "phone"), rows),
        )

        began = time.perf_counter()
        await _meet(laptop, phone)
        seconds = _since(began)
        checks = [check for meeting in met for check in await meeting.checks(laptop, phone)]
        checks.append(await _deleted(doomed, laptop, phone))
        yield Step(
            "together", "both are connected, and have what the other did", seconds, _outcome(checks), checks
        )

        began = time.perf_counter()
        await laptop.memories.restore(doomed.id)
        await _meet(laptop, phone)
        restored = [await hub.memories.get(doomed.id) for hub in (laptop, phone)]
        check = Check(
            "the restored memory has the phone's edit",
            99,
            *(None if memory is None else memory.importance for memory in restored),
        )
        yield Step(
            "restore", f"the laptop restores {doomed.name!r}", _since(began), _outcome([check]), [check]
        )

        began = time.perf_counter()
        checks = await _equal(laptop, phone)
        yield Step(
            "proof", "both digests are equal, and the server's too", _since(began), _outcome(checks), checks
        )

        began = time.perf_counter()
        await laptop.client.embedded(timeout=_SYNC_S_MAX)
        checks = [await _asked(laptop, phone)]
        yield Step(
            "meaning",
            "the laptop has made vectors of all texts; both are asked for a memory in words that it has not",
            _since(began),
            _outcome(checks),
            checks,
        )


async def _edit_apart(met: list[Meeting], doomed: Doomed, laptop: Hub, phone: Hub) -> None:
    """Edit on the laptop, then on the phone.

    Which of two edits of a field is later is for the clocks to say, and each device's is as right as one hello to the
    server could make it: the phone begins once its clock is past the laptop's edit.
    """
    the_field, *others = met
    earlier = (await the_field.on_laptop(laptop)).updated_at
    for meeting in others:
        await meeting.on_laptop(laptop)
    await laptop.memories.delete(doomed.id)
    while (await the_field.on_phone(phone)).updated_at <= earlier:  # noqa: ASYNC110 - it waits for a clock
        await asyncio.sleep(0.01)
    for meeting in others:
        await meeting.on_phone(phone)
    await phone.memories.set_importance(doomed.id, 99)


async def _meet(laptop: Hub, phone: Hub) -> None:
    """Send what both did, and fetch it on both."""
    await laptop.client.synced(timeout=_SYNC_S_MAX)
    await phone.client.synced(timeout=_SYNC_S_MAX)
    await laptop.client.synced(timeout=_SYNC_S_MAX)


async def _asked(laptop: Hub, phone: Hub) -> Check:
    """Ask the laptop, and on the phone the whole space, by meaning. The phone has made no vector."""
    here = await laptop.memories.search(_QUESTION, mode="meaning", limit=1)
    there: list[str] = []
    asked = phone.memories.search(_QUESTION, mode="meaning", scope="space", limit=1)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FOUND_S_MAX), contextlib.aclosing(asked.watch()) as live:
            async for hits in live:
                there = [f"{hit.record.name}, by {hits.scope}" for hit in hits]
                if there == [f"{_ANSWER}, by space"]:
                    break
    return Check(
        f"{_QUESTION!r} finds",
        _ANSWER,
        *(found.removesuffix(", by space") for found in (here[0].record.name, "".join(there))),
    )


async def _equal(laptop: Hub, phone: Hub) -> list[Check]:
    digest, records = await laptop.client.digest()
    other, others = await phone.client.digest()
    return [
        Check("the same digest of all records", digest, digest, other),
        Check("the same number of records", records, records, others),
        Check(
            "proved equal to the server",
            True,
            laptop.client.status.verified,
            phone.client.status.verified,
        ),
    ]


async def _encrypted(what: str, path: Path) -> Check:
    """Look for known words in a device's files."""

    def look() -> bool:
        files = [path.with_name(path.name + suffix) for suffix in ("", "-wal")]
        return any(_PHRASE in file.read_bytes() for file in files if file.exists())

    found = "found" if await asyncio.to_thread(look) else "not found"
    return Check(f"{what}: {_PHRASE.decode()!r} in its bytes", "not found", found, found)


async def _deleted(doomed: Doomed, laptop: Hub, phone: Hub) -> Check:
    held = ["there" if await hub.memories.get(doomed.id) else "deleted" for hub in (laptop, phone)]
    return Check("one deletes a memory that the other edits", "deleted", *held)


async def _held(laptop: Hub, phone: Hub) -> Table:
    """Return what each device holds, by collection."""
    rows = []
    for name in laptop.collections:
        counts = [f"{await hub.collections[name].count():,}" for hub in (laptop, phone)]
        rows.append((name, *counts))
    sql = "SELECT count(*) FROM conversations__messages"
    messages = [f"{(await hub.client.sql(sql))[0][0]:,}" for hub in (laptop, phone)]
    rows.append(("messages in them", *messages))
    return Table(("holds", "laptop", "phone"), rows)


def _outcome(checks: list[Check]) -> Table:
    rows = [
        (
            check.what,
            _shown(check.laptop),
            _shown(check.phone),
            "✓" if check.is_kept else f"✗ promised: {_shown(check.promised)}",
        )
        for check in checks
    ]
    return Table(("what", "laptop", "phone", ""), rows)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(held)}" for name, held in value.items())
    return msgspec.json.encode(value).decode()


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)
