"""What a person gets wrong, and what goes wrong around a person: each has its own error, which says what to do."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from client_sdk import Client, ValidationError
from client_sdk.errors import (
    AlreadyRegistered,
    DamagedFile,
    DiskFull,
    FileInUse,
    InvitationExpired,
    InvitationInvalid,
    InvitationUsed,
    NotRegistered,
    ProtocolMismatch,
    QueryError,
    ServerUnreachable,
    SyncTimeout,
    WrongKey,
)
from client_sdk.opening import open as open_client
from crdt import wire
from crdt.errors import ProtocolMismatch as KernelProtocolMismatch
from tests.client_sdk.device import KEY, check_laws
from tests.client_sdk.records import Note, Tag
from tests.journeys.conftest import Opens
from tests.journeys.live import LiveServer, eventually, free_port
from tests.journeys.switch import Switch
from tests.postgres import query

__all__: list[str] = []

SYNC_S_MAX = 20.0


@pytest.fixture
async def switch(server: LiveServer) -> AsyncIterator[Switch]:
    async with Switch(server.port) as switch:
        yield switch


async def titles(client: Client) -> list[str]:
    return [note.title for note in await client.collection(Note).order_by("title").all()]


# ------------------------------------------------------------------------------------------------------- the file


async def test_a_wrong_key_is_called_one_and_the_right_one_still_opens(tmp_path: Path, opens: Opens) -> None:
    client = await opens("a")
    await client.collection(Note).insert(Note(title="kept"))
    await client.close()
    with pytest.raises(WrongKey, match="Open it with the key that it was made with"):
        await open_client(tmp_path / "a.db", records=[Note, Tag], key=bytes(32))
    assert await titles(await opens("a")) == ["kept"]


async def test_a_damaged_file_is_kept_and_the_space_is_had_again_from_a_new_one(
    server: LiveServer, tmp_path: Path, opens: Opens
) -> None:
    client, path = await opens("a"), tmp_path / "a.db"
    await client.register(server.url)
    await client.collection(Note).insert_many([Note(title=f"{n:03}", body="x" * 500) for n in range(200)])
    await client.synced(SYNC_S_MAX)
    code = await client.invite()
    await client.close()
    damaged = bytearray(path.read_bytes())
    for page in range(1, len(damaged) // 4096):
        damaged[page * 4096 + 1_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DamagedFile, match="restore a backup to another path, or join") as caught:
        await titles(await opens("a"))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == damaged
    again = await opens("b")
    await again.join(server.url, code)
    await again.synced(SYNC_S_MAX)
    assert await titles(again) == [f"{n:03}" for n in range(200)]


HOLDER = """
import asyncio, sys
import client_sdk
from tests.client_sdk.device import KEY
from tests.client_sdk.records import Note, Tag
async def hold():
    async with client_sdk.open(sys.argv[1], records=[Note, Tag], key=KEY) as client:
        await client.collection(Note).insert(Note(title="held"))
        print("open", flush=True)
        await asyncio.Event().wait()
asyncio.run(hold())
"""


async def test_a_second_process_is_told_who_has_the_file_and_gets_it_when_that_one_is_gone(
    tmp_path: Path, opens: Opens
) -> None:
    path = tmp_path / "a.db"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            with pytest.raises(FileInUse, match=rf"process {holder.pid}: close it there first"):
                await opens("a")
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    assert await titles(await opens("a")) == ["held"]


# ----------------------------------------------------------------------------------------------------- the values


async def test_a_value_that_does_not_fit_is_named_with_what_would_and_nothing_is_written(
    opens: Opens,
) -> None:
    client = await opens("a")
    notes = client.collection(Note)
    note = await notes.insert(Note(title="a"))
    pending = client.status.pending
    wrong: list[tuple[Callable[[], Awaitable[Any]], str, str]] = [
        (lambda: notes.update(note.id, importance=101), "importance", "100"),
        (lambda: notes.update(note.id, importance="high"), "importance", "int"),
        (lambda: notes.insert(Note(title="x" * 201)), "title", "200"),
        (lambda: notes.insert_many([Note(title="b"), Note(title="c", importance=-1)]), "importance", "0"),
        (lambda: notes.update(note.id, no_such=1), "no_such", ""),
        (lambda: notes.increment(note.id, importance=1), "importance", ""),
        (lambda: notes.edit_text(note.id, "body", insert=(7, "x")), "body", "0"),
        (lambda: notes.update(note.id, title="\ud800"), "title", ""),
    ]
    for attempt, field, expected in wrong:
        with pytest.raises(ValidationError) as caught:
            await attempt()
        assert caught.value.record == "Note"
        assert caught.value.field == field
        assert caught.value.problem
        assert caught.value.expected
        assert expected in str(caught.value)
    with pytest.raises(QueryError, match="no_such"):
        await notes.where(no_such=1).all()
    assert await titles(client) == ["a"]
    assert client.status.pending == pending


# ----------------------------------------------------------------------------------------------------- the server


async def test_without_a_server_work_goes_on_and_is_sent_when_there_is_one(
    tmp_path: Path, opens: Opens
) -> None:
    client = await opens("a")
    with pytest.raises(NotRegistered, match=r"register\(url\).*join\(url, code\)"):
        await client.connect()
    nobody = f"http://127.0.0.1:{free_port()}"
    for attempt in (client.register(nobody), client.join(nobody, "pjais1-nonsense")):
        with pytest.raises((ServerUnreachable, InvitationInvalid)):
            await attempt
    with pytest.raises(
        ServerUnreachable, match="check the address and the network; work goes on offline"
    ) as caught:
        await client.register(nobody)
    assert caught.value.url == nobody
    for address in ("127.0.0.1:80", "ftp://localhost", "http://", "nonsense", "http://[::1"):
        with pytest.raises(ServerUnreachable, match=r"http://127\.0\.0\.1:8787"):
            await client.register(address)
    assert not client.is_registered


async def test_a_server_that_went_away_is_found_again_when_it_comes_back(
    switch: Switch, opens: Opens
) -> None:
    client = await opens("a")
    await client.register(switch.url)
    await client.synced(SYNC_S_MAX)
    await switch.turn(None)
    await client.collection(Note).insert(Note(title="meanwhile"))
    with pytest.raises(SyncTimeout, match=r"1 updates wait to be sent.*Nothing is lost"):
        await client.synced(0.5)
    assert (client.status.state, client.status.pending) == ("offline", 1)
    assert client.status.last_error is not None
    switch.sockets_to = switch.port
    await client.synced(SYNC_S_MAX)
    assert client.status.verified


@pytest.mark.parametrize(
    "answer",
    [
        wire.Welcome(2, 0, []),
        wire.Failure("protocol_mismatch", "the device speaks protocol 1, the server 2; update the device"),
    ],
    ids=["welcome", "failure"],
)
async def test_a_server_of_another_protocol_version_says_which_side_to_update(
    switch: Switch, opens: Opens, answer: wire.FromServer
) -> None:
    client = await opens("a")
    await client.register(switch.url)
    await client.collection(Note).insert(Note(title="a"))

    async def newer(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(wire.encode(answer))
        await socket.wait_closed()

    async with serve(newer, "127.0.0.1", 0) as stand_in:
        await switch.turn(next(iter(stand_in.sockets)).getsockname()[1])
        with pytest.raises(
            ProtocolMismatch, match="protocol 2 at the other side, 1 here: update this program"
        ) as caught:
            await client.synced(SYNC_S_MAX)
        assert isinstance(caught.value, KernelProtocolMismatch)
        dialled = switch.sockets
        assert client.status.state == "error"
        assert client.status.last_error is caught.value
    await switch.turn(switch.port)
    assert switch.sockets == dialled, "it does not try again by itself"
    await client.connect()  # the program was updated
    await client.synced(SYNC_S_MAX)
    assert client.status.verified


async def test_an_invitation_that_is_mistyped_used_or_expired_says_which(
    server: LiveServer, opens: Opens, shared_url: str
) -> None:
    first, second, third = [await opens(name) for name in "abc"]
    await first.register(server.url)
    code = await first.invite()
    swapped = (
        code[:-2] + code[:-3:-1] if code[-1] != code[-2] else code[:-1] + ("0" if code[-1] != "0" else "1")
    )
    for mistyped in (
        "",
        "hello",
        code[:-1],
        code[:20],
        swapped,
        code + "0",
        code.replace("pjais1", "pjais9"),
    ):
        with pytest.raises(InvitationInvalid, match="Copy the whole code again"):
            await second.join(server.url, mistyped)
    await second.join(server.url, f" {code.lower()}\n")  # as people copy it
    with pytest.raises(InvitationUsed, match=r"make a new one with invite\(\)"):
        await third.join(server.url, code)
    with pytest.raises(AlreadyRegistered, match="open another file for another space"):
        await second.join(server.url, await first.invite())
    late = await first.invite()
    end = f"UPDATE invitations SET expires_at = now() - interval '1 second' WHERE space_id = '{first.space}'"
    await query(shared_url, end, "SELECT 1")
    with pytest.raises(InvitationExpired, match=r"ten minutes.*make a new one with invite\(\)"):
        await third.join(server.url, late)
    assert not third.is_registered
    await third.join(server.url, await first.invite())


# ------------------------------------------------------------------------------------------------------- the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB, where this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs rights that this user has not; the test beside this needs none")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_during_sync_is_said_and_all_goes_on_when_there_is_room(
    server: LiveServer, small_disk: Path, opens: Opens
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(37 << 20))
    writer = await opens("writer")
    reader = await open_client(small_disk / "reader.db", records=[Note, Tag], key=KEY)
    try:
        await _through_a_full_disk(server, writer, reader, make_room=filler.unlink)
    finally:
        await reader.close()


async def test_a_file_at_its_limit_is_a_full_disk_too(server: LiveServer, opens: Opens) -> None:
    writer, reader = await opens("writer"), await opens("reader")

    async def allow(pages: int) -> None:
        await reader._writer.database.maintain(
            lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        )

    room = asyncio.Event()
    await allow(400)

    async def make_room() -> None:
        await room.wait()
        await allow(4_294_967_294)

    waiting = asyncio.create_task(make_room())
    await _through_a_full_disk(server, writer, reader, make_room=room.set)
    await waiting


async def _through_a_full_disk(
    server: LiveServer, writer: Client, reader: Client, *, make_room: Callable[[], object]
) -> None:
    await writer.register(server.url)
    await reader.join(server.url, await writer.invite())
    await reader.collection(Note).insert(Note(title="of the reader"))
    await asyncio.gather(writer.synced(SYNC_S_MAX), reader.synced(SYNC_S_MAX))
    records = [Note(title=f"{n:04}", body="a full page of prose " * 60) for n in range(2_000)]
    await writer.collection(Note).insert_many(records)
    await eventually(lambda: reader.status.state == "error", what=lambda: reader.status)
    assert isinstance(reader.status.last_error, DiskFull)
    with pytest.raises(DiskFull, match=r"the write was undone as a whole\. Make room, then repeat it"):
        for n in range(1_000):
            await reader.collection(Note).insert(Note(title=f"more {n:04}", body="x" * 5_000))
    written = [title for title in await titles(reader) if title.startswith("more")]
    await writer.synced(SYNC_S_MAX)  # others are not held up
    make_room()
    await reader.collection(Note).insert(Note(title="room again"))
    await reader.synced(60)
    await writer.synced(SYNC_S_MAX)
    assert await titles(reader) == await titles(writer)
    assert await titles(reader) == sorted(
        ["of the reader", "room again", *written, *(one.title for one in records)]
    )
    assert reader.status.verified
    assert await reader.digest() == await writer.digest()
    await check_laws(reader)
    assert await reader.sql("SELECT * FROM pjais_quarantine") == []
