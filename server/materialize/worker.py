"""The worker: a process that folds records and may die of it.

``python -m server.materialize.worker MEMORY_BYTES CPU_S`` reads a `Work` a frame from standard input and answers
each with an `Outcome` on standard output, in order: when it dies, the first work without an answer is the
one. A frame is its length in four bytes, big endian, and MessagePack. The first frame that it sends is empty:
it is there, and can fold.

Two limits are the kernel's, since hostile bytes may keep the interpreter from ever running again: memory
(``RLIMIT_AS``), past which an allocation fails, and processor time for each record, past which ``SIGPROF``
ends the process. Time that it spends waiting for a processor does not count. It ends with its input, and
knows no secret: its environment is scrubbed.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import BinaryIO, Final

import msgspec

from server.materialize.fold import Outcome, Work, fold_record

__all__ = ["HEAD_BYTES", "frame_of", "main", "outcome_of", "seconds_for"]

HEAD_BYTES: Final = 4
_MIB: Final = 1024 * 1024
#: What must be left of the memory at the start: with less, honest records would be taken for poison.
_FREE_BYTES_MIN: Final = 256 * _MIB

_encode: Final = msgspec.msgpack.Encoder().encode
_work_of: Final = msgspec.msgpack.Decoder(Work).decode
outcome_of: Final = msgspec.msgpack.Decoder(Outcome).decode


def frame_of(message: Work | Outcome) -> bytes:
    """Return a message as a frame."""
    data = _encode(message)
    return len(data).to_bytes(HEAD_BYTES, "big") + data


def seconds_for(work: Work, cpu_s: float) -> float:
    """Return the processor time that folding a record may take: ``cpu_s`` for each MiB begun."""
    return cpu_s * (1 + work.size // _MIB)


def main(memory_bytes_max: int, cpu_s: float) -> None:
    """Fold what comes until the input ends."""
    _limit_memory(memory_bytes_max)
    bytearray(_FREE_BYTES_MIN)  # or die now
    has_timer = hasattr(
        signal, "setitimer"
    )  # Windows has none: there the parent's patience is the only limit
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    sink.write(bytes(HEAD_BYTES))
    sink.flush()
    while (data := _read(source)) is not None:
        work = _work_of(data)
        if has_timer:
            signal.setitimer(signal.ITIMER_PROF, seconds_for(work, cpu_s))
        outcome = fold_record(work)
        if has_timer:
            signal.setitimer(signal.ITIMER_PROF, 0.0)
        sink.write(frame_of(outcome))
        sink.flush()


def _read(source: BinaryIO) -> bytes | None:
    head = source.read(HEAD_BYTES)
    size = int.from_bytes(head, "big")
    data = source.read(size)
    return data if len(head) == HEAD_BYTES and len(data) == size else None


def _limit_memory(memory_bytes_max: int) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    with contextlib.suppress(ValueError, OSError):  # a stricter limit stands already
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(
            resource.RLIMIT_CORE, (0, 0)
        )  # a core is a gigabyte of somebody's documents on the disk


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
