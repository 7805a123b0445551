"""Sealed fields: a value sealed, and opened, beside the cipher alone on the same bytes."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from client_sdk import Record, Sealed
from client_sdk.rows import Table
from client_sdk.seal import NONCE_BYTES, Seals, SpaceKey
from crdt.schema import schema_of
from crdt.sealed import seal_value
from loadtests.bench.report import report

__all__ = ["bench_sealed"]

_ROUNDS = 15
_VALUE = "sk-" + "x" * 48  # an API key's length
_CONTEXT = bytes(60)  # about what is authenticated beside a value


class _Vault(Record, collection="vaults"):
    """A record with one secret."""

    secret: Sealed[str | None] = None


def bench_sealed(*, count: int) -> None:
    """Print how many values a second are sealed, and opened; ``count`` a round."""
    schema = schema_of(_Vault)
    table = Table(schema, Seals((SpaceKey(os.urandom(32)),)))
    field, records = table.sealed["secret"], [f"{number:036}" for number in range(count)]
    sealed = [seal_value(schema, field.field, _VALUE, table.sealer(record, os.urandom)) for record in records]
    raw_cipher, nonces = AESGCMSIV(os.urandom(32)), [os.urandom(NONCE_BYTES) for _ in records]
    padded = (_VALUE.encode() + b"\x80").ljust(56, b"\0")
    raw_sealed = [raw_cipher.encrypt(nonce, padded, _CONTEXT) for nonce in nonces]
    assert field.open(records[0], sealed[0]) == _VALUE

    def seal() -> None:
        for record in records:
            seal_value(schema, field.field, _VALUE, table.sealer(record, os.urandom))

    def seal_raw() -> None:
        for nonce in nonces:
            raw_cipher.encrypt(nonce, padded, _CONTEXT)

    def open_() -> None:
        for record, held in zip(records, sealed, strict=True):
            field.open(record, held)

    def open_raw() -> None:
        for nonce, held in zip(nonces, raw_sealed, strict=True):
            raw_cipher.decrypt(nonce, held, _CONTEXT)

    for name, ours, raw in (("sealing a field", seal, seal_raw), ("opening a field", open_, open_raw)):
        times, raw_times = _alternated(ours, raw)
        rate, raw_rate = count / times, count / raw_times
        report(
            name,
            rate,
            "values/s",
            raw=raw_rate,
            ratio=rate / raw_rate,
            target=">= 50,000/s",
            is_reached=rate >= 50_000,
        )


def _alternated(ours: Callable[[], None], raw: Callable[[], None]) -> tuple[float, float]:
    """Return the median seconds of both, turn by turn."""
    times: dict[Callable[[], None], list[float]] = {ours: [], raw: []}
    for _ in range(_ROUNDS):
        for work, measured in times.items():
            began = time.perf_counter()
            work()
            measured.append(time.perf_counter() - began)
    return statistics.median(times[ours]), statistics.median(times[raw])
