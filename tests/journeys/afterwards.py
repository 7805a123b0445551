"""What must be true when everything that died has come back: nothing is lost, nothing is there twice, all are equal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import httpx

from client_sdk import Client
from client_sdk.outbox import PendingBatch
from client_sdk.sync.events import OutboxPlace
from client_sdk.sync.replica import Replica
from crdt import wire
from tests.journeys.live import LiveServer
from tests.journeys.work import SHARED, Work, held_by_title, tokens_of

__all__ = ["Acknowledged", "check_equal", "check_log", "check_quiet", "check_served", "quarantined", "settle"]

_SETTLE_S_MAX: Final = 120.0


class Acknowledged(Replica):
    """Stands in a client for its replica, and notes which updates went out, and which were acknowledged."""

    def __init__(self, client: Client) -> None:
        super().__init__(client._writer)
        client._replica = self
        self.count = 0
        self.through: dict[int, int] = {}
        self.updates: dict[tuple[int, int], bytes] = {}

    async def pending(
        self, after: OutboxPlace | None, *, edits_max: int, bytes_max: int
    ) -> PendingBatch | None:
        batch = await super().pending(after, edits_max=edits_max, bytes_max=bytes_max)
        if batch is not None:
            for n, edit in enumerate(batch.edits, batch.first):
                assert self.updates.setdefault((batch.incarnation, n), edit.update) == edit.update
        return batch

    async def acknowledge(self, incarnation: int, through: int, refusals: list[wire.Refusal]) -> None:
        assert not refusals, f"honest updates were refused: {refusals}"
        await super().acknowledge(incarnation, through, refusals)
        self.count += through - self.through.get(incarnation, 0)
        self.through[incarnation] = through


async def settle(clients: Sequence[Client]) -> None:
    """Wait until every device has sent and read everything, and the server has proved it."""
    for _ in range(2):  # what the last one sent, the first one reads in the second round
        for client in clients:
            await client.synced(_SETTLE_S_MAX)
    assert all(client.status.verified and not client.status.pending for client in clients)


async def check_equal(
    clients: Sequence[Client],
    works: Sequence[Work],
    *,
    met: set[str],
    maybe_met: set[str] = frozenset(),  # type: ignore[assignment]
) -> None:
    """Every device holds all of the works, and who met in the shared record; their digests are equal."""
    digests = {await client.digest() for client in clients}
    assert len(digests) == 1, digests
    for client in clients:
        found = await held_by_title(client)
        for work in works:
            problem = work.difference(found)
            assert not problem, f"a write that had returned is lost: {problem}"
        tokens = tokens_of(found[SHARED])
        assert met <= tokens <= met | maybe_met
        assert await quarantined(client) == []


async def quarantined(client: Client) -> list[tuple[str, str, str]]:
    """Return (record, code, source) of what a device could not take."""
    rows = await client.sql("SELECT record, code, source FROM pjais_quarantine ORDER BY quarantine")
    return [(row["record"], row["code"], row["source"]) for row in rows]


async def check_served(client: Client, server: LiveServer, works: Sequence[Work]) -> None:
    """The server shows the works' records, folded, as they are."""
    found: dict[str, dict[str, Any]] = {}
    headers = {"Authorization": f"Bearer {await client._account.token()}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as http:
        after: str | None = ""
        while after is not None:
            route = f"/v1/spaces/{client.space}/documents"
            page = await http.get(route, params={"collection": "notes", "after": after, "limit": 500})
            assert page.is_success, page.text
            found |= {
                record["id"]: record["value"] for record in page.json()["records"] if not record["deleted"]
            }
            after = page.json()["next"]
    alive = [held for work in works for held in work.records.values() if not held.is_deleted]
    assert len(found) == len(alive) + 1  # and the shared one
    for held in alive:
        value = found[held.id]
        assert value["importance"] == held.importance
        assert value.get("views", 0) == held.views
        assert set(value.get("tags", [])) == held.tags
        assert value.get("body", "") == held.body
        assert [line["id"] for line in value.get("lines", [])] == held.lines
        assert value.get("scores", []) == held.scores


async def check_log(url: str, acknowledged: Mapping[Client, Acknowledged]) -> int:
    """Return the log's rows: one for each update, without gaps, and each that was acknowledged with the bytes
    it had.
    """
    connection = await asyncpg.connect(url)
    try:
        for table in ("refusals", "quarantine"):
            kept = await connection.fetch(f"SELECT * FROM {table}")
            assert not kept, f"{table}: {kept[:3]}"
        spaces = {client.space for client in acknowledged}
        rows = await connection.fetch(
            "SELECT position, device_id, incarnation, n, client_id, collection, record_id, clock_start, update "
            "FROM log WHERE space_id = ANY($1::uuid[]) ORDER BY position",
            list(spaces),
        )
        assert [row["position"] for row in rows] == list(range(1, len(rows) + 1)), "positions have gaps"
        numbers = [(row["device_id"], row["incarnation"], row["n"]) for row in rows]
        assert len(set(numbers)) == len(numbers), "an update stands in the log twice"
        clocks = [(row["client_id"], row["collection"], row["record_id"], row["clock_start"]) for row in rows]
        assert len(set(clocks)) == len(clocks), "a change stands in the log twice"
        writers = await connection.fetch(
            "SELECT device_id, incarnation, through FROM writers WHERE space_id = ANY($1::uuid[])",
            list(spaces),
        )
        for device, incarnation, through in writers:
            held = sorted(n for one, of, n in numbers if (one, of) == (device, incarnation))
            assert held == list(range(1, through + 1)), f"{device} has gaps in its numbers"
        updates = {number: row["update"] for number, row in zip(numbers, rows, strict=True)}
        for client, noted in acknowledged.items():
            device = UUID(client._account.require().device)
            for incarnation, through in noted.through.items():
                for n in range(1, through + 1):
                    assert updates[device, incarnation, n] == noted.updates[incarnation, n]
        return len(rows)
    finally:
        await connection.close()


def check_quiet(server: LiveServer) -> None:
    """The server runs, and has logged nothing that nobody foresaw."""
    assert server.is_running
    assert server.problems() == []
