"""Many seeds: a Postgres for each process that runs some, and reports as they come.

A seed runs whole in one process. A module of its own, since processes that are spawned cannot import a ``__main__``.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import structlog

from server.database import Database
from server.embedded import EmbeddedPostgres
from server.settings import load_settings
from tests.postgres import fast_folder, query, with_database
from tests.simulation.simulation import Report, simulate

__all__ = ["Task", "cluster", "devices_of", "quieten", "run_many", "run_seed"]

_MEMORY: Final = Path("/dev/shm")


class Task(NamedTuple):
    """A seed, and how large its world is."""

    seed: int
    devices: int
    operations: int


def devices_of(seed: int) -> int:
    """Return how many devices a seed has, unless it is told."""
    return 3 + seed % 3


@contextmanager
def cluster(databases: int) -> Iterator[list[str]]:
    """Start a Postgres in memory, with some migrated databases; yield their URLs."""
    with fast_folder() as folder:
        postgres = EmbeddedPostgres(folder / "postgres")
        postgres.start_now()
        try:
            urls = []
            for number in range(databases):
                asyncio.run(query(postgres.url, f"CREATE DATABASE simulation_{number}", "SELECT 1"))
                urls.append(with_database(postgres.url, f"simulation_{number}"))
                asyncio.run(_migrate(urls[-1]))
            yield urls
        finally:
            postgres.stop_now()


def run_seed(task: Task, url: str) -> Report:
    """Run one seed in this process."""
    folder = _MEMORY if _MEMORY.is_dir() else None
    return asyncio.run(
        simulate(task.seed, devices=task.devices, operations=task.operations, url=url, folder=folder)
    )


def quieten() -> None:
    """Let nothing be logged by this process: what is worth saying is in the trace."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)


def run_many(tasks: Sequence[Task], *, jobs: int) -> Iterator[Report]:
    """Run seeds in several processes; yield each report when it is there."""
    context = multiprocessing.get_context("spawn")
    with cluster(jobs) as urls, context.Manager() as shared:
        idle = shared.Queue()
        for url in urls:
            idle.put(url)
        with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(idle,)) as pool:
            for future in as_completed([pool.submit(_run, task) for task in tasks]):
                yield future.result()


_url = ""


def _begin(idle: queue.Queue[str]) -> None:
    global _url  # noqa: PLW0603 - the database that this process works on
    quieten()
    _url = idle.get()


def _run(task: Task) -> Report:
    return run_seed(task, _url)


async def _migrate(url: str) -> None:
    database = await Database.connect(url, load_settings())
    try:
        await database.migrate()
    finally:
        await database.close()
