"""How a device's file is opened: every option, with its unit and the reason for its default.

The defaults are for a desktop: promise 1 (a write that returned is never lost) before speed. Figures are from
two cores of a virtual machine on ext4, with SQLCipher 4.19.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Options of one opening. Everything has a default that suits; change one to measure, not by taste.
    Raises ``ValueError`` when a value is out of its bounds.
    """

    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """FULL: a commit returns after its fsync, so it outlives a power cut (about 200 µs here). NORMAL: it
    outlives a killed process, and a power cut may take the last commits (about 30 µs)."""

    readers: int = 2
    """Connections that read, each with a thread: one more than a slow query takes, so that quick ones pass
    it."""

    inline: Literal["never", "quick", "always"] = "quick"
    """Whether a transaction may run on the caller's thread instead of the database's. A hop there and back
    costs about 100 µs: half an fsync, and three times a commit under NORMAL. "quick": those that say they
    are brief, as long as recent ones each took less than ``inline_ms_max``, so that a slow disk moves them to the
    thread. "always": every one, for a simulation whose order must not depend on threads."""

    inline_ms_max: float = 2.0
    """Milliseconds. A brief transaction that took longer sends those that follow to the thread: an event
    loop that is held for 10 ms is felt in a user interface, and a fifth of it leaves room for whatever else
    it does."""

    switch_interval_ms: float = 1.0
    """Milliseconds after which a thread that runs Python gives way to another that waits
    (`sys.setswitchinterval`, which holds for the whole process; a shorter one that is set already stays). With Python's
    5 ms the event loop was held for 25 ms at p99 and 56 at most while 20,000 records arrived; with 1 ms for 4 at p99,
    and they arrived no later. 0 changes nothing."""

    cached_statements: int = 512
    """Prepared statements kept by each connection: more than all collections have, as preparing costs 10
    µs."""

    cache_bytes: int = 16 << 20
    """Bytes of decrypted pages kept by each connection: one read from the file costs 10 µs of
    decryption."""

    wal_pages: int = 500
    """Pages of 4 KiB after which the log is copied into the file. A log that grows costs more at each fsync
    than one that is written over: with 500 a commit measured 150 to 190 µs, with 2,000 it measured 240."""

    wal_bytes_max: int = 64 << 20
    """Bytes to which the log is cut back after a large transaction has made it longer."""

    busy_timeout_ms: int = 5_000
    """Milliseconds to wait for a lock of SQLite's. We alone never wait; a tool that looks in may hold
    one."""

    hot_document_bytes: int = 32 << 20
    """Bytes of documents kept open in memory, by their snapshots' size: editing one of them saves reading
    it."""

    result_cache_bytes: int = 8 << 20
    """Bytes of results that queries keep with `cached`, by the size of their JSON; Python's objects take three times
    that."""

    advisor: Literal["off", "automatic"] = "off"
    """Whether the indexes that the query advisor finds worth having are made without being asked (`Advisor.apply`),
    after every 2,000 queries. Its figures are kept either way."""

    def __post_init__(self) -> None:
        for name, least in (
            ("readers", 1),
            ("inline_ms_max", 0),
            ("switch_interval_ms", 0),
            ("cached_statements", 16),
            ("cache_bytes", 1 << 20),
            ("wal_pages", 16),
            ("wal_bytes_max", 0),
            ("busy_timeout_ms", 0),
            ("hot_document_bytes", 0),
            ("result_cache_bytes", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise ValueError(f"Config.{name} is {value}, and must be at least {least}")
        if self.synchronous not in {"FULL", "NORMAL"}:
            raise ValueError(f'Config.synchronous is {self.synchronous!r}; it is "FULL" or "NORMAL"')
        if self.advisor not in {"off", "automatic"}:
            raise ValueError(f'Config.advisor is {self.advisor!r}; it is "off" or "automatic"')
        if self.inline not in {"never", "quick", "always"}:
            raise ValueError(f'Config.inline is {self.inline!r}; it is "never", "quick" or "always"')
