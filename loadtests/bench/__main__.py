"""``make bench``: every figure as a JSON line. ``RECORDS`` and ``ONLY`` (device, instances, server, sync) narrow it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from loadtests.bench.device import bench_device, scratch
from loadtests.bench.instances import bench_instances
from loadtests.bench.report import summary
from loadtests.bench.server import bench_server
from loadtests.bench.sync import bench_sync

__all__: list[str] = []


def main() -> None:
    """Run the benchmarks in a folder of their own."""
    only, records = os.environ.get("ONLY", ""), int(os.environ.get("RECORDS", "100000"))
    with scratch() as name:
        if only in {"", "device"}:
            asyncio.run(bench_device(Path(name), records=records))
        if only in {"", "instances"}:
            asyncio.run(bench_instances(Path(name), commits=300, inserts=1_000))
        if only in {"", "server"}:
            bench_server(Path(name), updates=20_000)
        if only in {"", "sync"}:
            asyncio.run(bench_sync(Path(name), records=10_000, edits=300))
    print(json.dumps(summary()))


if __name__ == "__main__":
    main()
