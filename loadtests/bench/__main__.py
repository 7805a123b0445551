"""``make bench``: every figure as a JSON line. ``ONLY`` names the benchmarks to run, ``RECORDS`` how many there are."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loadtests.bench.device import bench_device, scratch
from loadtests.bench.instances import bench_instances
from loadtests.bench.live import bench_live
from loadtests.bench.meaning import bench_meaning
from loadtests.bench.product import bench_product
from loadtests.bench.report import summary
from loadtests.bench.sealed import bench_sealed
from loadtests.bench.search import bench_search
from loadtests.bench.server import bench_server
from loadtests.bench.server_search import bench_server_search
from loadtests.bench.space import bench_space
from loadtests.bench.sync import bench_sync
from loadtests.bench.talks import bench_talks

__all__: list[str] = []

BENCHES: Final[dict[str, Callable[[Path, int], None]]] = {
    "device": lambda folder, records: asyncio.run(bench_device(folder, records=records)),
    "instances": lambda folder, _: asyncio.run(bench_instances(folder, commits=300, inserts=1_000)),
    "live": lambda folder, _: asyncio.run(bench_live(folder)),
    "meaning": lambda folder, records: asyncio.run(bench_meaning(folder, records=records)),
    "product": lambda folder, records: asyncio.run(bench_product(folder, records=records)),
    "sealed": lambda _folder, _: bench_sealed(count=5_000),
    "search": lambda folder, records: asyncio.run(bench_search(folder, records=records)),
    "talks": lambda folder, _: asyncio.run(bench_talks(folder)),
    "server": lambda folder, _: bench_server(folder, updates=20_000),
    "server_search": lambda folder, _: bench_server_search(folder),
    "space": lambda folder, _: asyncio.run(bench_space(folder)),
    "sync": lambda folder, _: asyncio.run(bench_sync(folder, records=10_000, edits=300)),
}


def main() -> None:
    """Run the benchmarks, each in a folder of its own."""
    only = os.environ.get("ONLY", "").replace(",", " ").split() or list(BENCHES)
    if unknown := set(only) - set(BENCHES):
        sys.exit(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    records = int(os.environ.get("RECORDS", "100000"))
    for name in only:
        with scratch() as folder:
            BENCHES[name](Path(folder), records)
    print(json.dumps(summary()))


if __name__ == "__main__":
    main()
