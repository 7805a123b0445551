"""The figures by name, as both exports tell them: base units, one name for a thing, labels for what it is of.

Names follow the conventions of Prometheus (seconds, bytes, ``_total`` for what only grows), and so may be found again
under the same name in either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from client_sdk.metrics import Metrics

__all__ = ["FIGURES", "Figure", "Value", "values"]


class Figure(msgspec.Struct, frozen=True):
    """A name, whether it only grows, its unit, and what it tells."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: Literal["", "bytes", "seconds"]
    text: str


class Value(msgspec.Struct, frozen=True):
    """One number, and what it is of."""

    labels: Mapping[str, str]
    number: float


FIGURES: Final = (
    Figure("pjais_calls", "counter", "", "Calls to the database since it was opened, by what was called"),
    Figure("pjais_call_errors", "counter", "", "Calls that raised"),
    Figure("pjais_call_seconds", "counter", "seconds", "Seconds that all calls took together"),
    Figure(
        "pjais_call_latency_seconds",
        "gauge",
        "seconds",
        "Latency of the last minutes by quantile, 1 the longest",
    ),
    Figure("pjais_live_queries", "gauge", "", "Live queries that are open"),
    Figure("pjais_live_updates", "counter", "", "How often live queries were patched, read again, and told"),
    Figure(
        "pjais_cache_answers", "counter", "", "Queries that a kept result answered, and that were read for it"
    ),
    Figure("pjais_cache_dropped", "counter", "", "Kept results that a commit threw away"),
    Figure("pjais_cache_bytes", "gauge", "bytes", "Kept results, by the size of their JSON"),
    Figure("pjais_sync_state", "gauge", "", "1 for the state that the sync is in"),
    Figure("pjais_sync_pending", "gauge", "", "Updates that the server has not acknowledged"),
    Figure(
        "pjais_sync_behind", "gauge", "", "Updates that the server has told of and this device has not read"
    ),
    Figure("pjais_sync_verified", "gauge", "", "1 when both sides were proved equal at this state, else 0"),
    Figure("pjais_sync_frames", "counter", "", "Pushes that were acknowledged, pages that were read (pull)"),
    Figure("pjais_sync_updates", "counter", "", "Updates in them; refused: by the server"),
    Figure(
        "pjais_sync_last_timestamp_seconds",
        "gauge",
        "seconds",
        "When the device last was in step, since 1970",
    ),
    Figure("pjais_records", "gauge", "", "Records that are not deleted, by collection"),
    Figure("pjais_storage_bytes", "gauge", "bytes", "Room that a collection takes, by part; worked out"),
    Figure(
        "pjais_file_bytes", "gauge", "bytes", "Length of the file and of its log (wal), and free pages in it"
    ),
    Figure("pjais_disk_free_bytes", "gauge", "bytes", "Room on the disk"),
    Figure("pjais_process_memory_bytes", "gauge", "bytes", "Memory of the process, now and at most"),
)


def values(metrics: Metrics) -> dict[str, list[Value]]:
    """Return the numbers of each figure, by its name."""
    calls = {
        "read": metrics.reads,
        "write": metrics.writes,
        "transaction": metrics.transactions,
        "remote": metrics.remote,
    }
    quantiles = [
        Value({"call": name, "quantile": quantile}, milliseconds / 1_000)
        for name, one in calls.items()
        for quantile, milliseconds in (
            ("0.5", one.p50_ms),
            ("0.95", one.p95_ms),
            ("0.99", one.p99_ms),
            ("1", one.max_ms),
        )
    ]
    live, cache, sync, storage = metrics.live, metrics.cache, metrics.sync, metrics.storage
    updates = {"patched": live.patched, "read": live.read, "told": live.told}
    synced = [] if sync.last_synced is None else [Value({}, sync.last_synced.timestamp())]
    answers = {"kept": cache.hits, "read": cache.misses}
    over_the_wire = {"push": sync.pushed, "refused": sync.refused, "pull": sync.pulled}
    files = {"file": storage.file_bytes, "wal": storage.wal_bytes, "free": storage.free_bytes}
    memory = {"now": metrics.memory_bytes, "peak": metrics.memory_peak_bytes}
    return {
        "pjais_calls": [Value({"call": name}, one.count) for name, one in calls.items()],
        "pjais_call_errors": [Value({"call": name}, one.errors) for name, one in calls.items()],
        "pjais_call_seconds": [Value({"call": name}, one.total_ms / 1_000) for name, one in calls.items()],
        "pjais_call_latency_seconds": quantiles,
        "pjais_live_queries": [Value({}, live.open)],
        "pjais_live_updates": [Value({"how": how}, count) for how, count in updates.items()],
        "pjais_cache_answers": [Value({"how": how}, count) for how, count in answers.items()],
        "pjais_cache_dropped": [Value({}, cache.dropped)],
        "pjais_cache_bytes": [Value({}, cache.bytes)],
        "pjais_sync_state": [
            Value({"state": state}, state == sync.state)
            for state in ("offline", "connecting", "syncing", "synced", "error")
        ],
        "pjais_sync_pending": [Value({}, sync.pending)],
        "pjais_sync_behind": [Value({}, sync.head - sync.cursor)],
        "pjais_sync_verified": [Value({}, sync.verified is True)],
        "pjais_sync_frames": [Value({"way": "push"}, sync.pushes), Value({"way": "pull"}, sync.pulls)],
        "pjais_sync_updates": [Value({"what": what}, count) for what, count in over_the_wire.items()],
        "pjais_sync_last_timestamp_seconds": synced,
        "pjais_records": [
            Value({"collection": name}, one.records) for name, one in metrics.collections.items()
        ],
        "pjais_storage_bytes": [
            Value({"collection": name, "part": part}, size)
            for name, one in metrics.collections.items()
            for part, size in (
                ("data", one.data_bytes),
                ("index", one.index_bytes),
                ("log", one.log_bytes),
            )
        ],
        "pjais_file_bytes": [Value({"part": part}, size) for part, size in files.items()],
        "pjais_disk_free_bytes": [Value({}, storage.disk_free_bytes)],
        "pjais_process_memory_bytes": [
            Value({"which": which}, size) for which, size in memory.items() if size is not None
        ],
    }
