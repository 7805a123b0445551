"""Live queries: views that are brought up to date after each commit, by the few rows that it changed.

Those who watch equal things share one `Live`. Each is found by its collection, and where its query asks for
certain values of a column, by those: a changed row is shown to the few whose value it has or had. So a commit
costs what it touches, and not what is watched. What a view cannot decide from the row is read again, in the
background.

One commit is one notice, and what is told is always the state after some whole commit: a read says which
commit it saw (`pjais_state.commits`), what that holds already is left out, and what came later is taken in
the order of the commits. A consumer that is busy while several commits pass gets the latest result, and no
queue grows. A result equal to the one before is not told again. An error in one callback is logged, and stops
neither it nor the others.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from typing import Any, Final, TypeVar

import msgspec

from client_sdk.commit import Committed
from client_sdk.conditions import Undecided
from client_sdk.database import Connection
from client_sdk.listeners import NOTHING, Calling, Held, Listener, Waiting
from client_sdk.materialize import Change
from client_sdk.rows import Table
from client_sdk.views import View

__all__ = ["CallbackSubscription", "LiveCounts", "Watches"]

T = TypeVar("T")

log = logging.getLogger(__name__)

_ANY_COMMIT: Final = 1 << 63  # later than every commit: whatever was read is read again


class LiveCounts(msgspec.Struct):
    """What live queries cost: how many are open, and how often one was patched, read, and told to somebody."""

    open: int = 0
    patched: int = 0
    read: int = 0
    told: int = 0


class Watches:
    """Everyone who watches. Its methods belong to the event loop."""

    def __init__(self, read: Callable[..., Awaitable[Any]], tables: Mapping[str, Table]) -> None:
        self.counts = LiveCounts()
        self._read = read
        self.tables = tables
        self._lives: dict[Any, _Live] = {}
        self._index: dict[str, _Index] = {}
        self._due: dict[_Live, None] = {}  # in the order in which their results changed
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_flushing = self._is_closed = False
        self._context = contextvars.copy_context()  # outside of any transaction

    # -- Watching

    async def watch(self, view: View[T]) -> AsyncGenerator[T, None]:
        """Yield a view's result, now and each time that it changes. Ends when the client closes."""
        waiting: Waiting[T] = Waiting()
        live = self._join(view, waiting)
        waiting.current = lambda: live.view.result() if live.is_read else NOTHING
        try:
            while (result := await waiting.next()) is not NOTHING:
                yield result
        finally:
            self._leave(live, waiting)

    def subscribe(self, view: View[T], callback: Callable[[T], Any]) -> CallbackSubscription:
        """Call back with a view's result, now and each time that it changes; may be a coroutine function."""
        calling = Calling(callback, self.spawn)
        live = self._join(view, calling)

        def close() -> None:
            calling.close()
            self._leave(live, calling)

        return CallbackSubscription(close)

    def hold(self, view: View[T], dropped: Callable[[], None]) -> Held[T]:
        """Keep a view true with nobody watching; ``dropped`` is called when a commit cannot be patched into it."""
        held: Held[T] = Held(dropped)
        live = self._join(view, held)
        held.leave = lambda: self._leave(live, held)
        held.current = live.view.result
        return held

    async def close(self) -> None:
        """End every watcher."""
        self._is_closed = True
        for live in list(self._lives.values()):
            for listener in list(live.listeners):
                listener.close()
                self._leave(live, listener)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- What became true

    def committed(self, committed: Committed) -> None:
        """Show each live query the changes that can matter to it; of other instances' it reads what they made."""
        if committed.is_foreign:
            for name in committed.collections & self._index.keys():
                for live in list(self._index[name].lives):
                    self._take(live, committed.commits, None)
            return
        touched: dict[_Live, list[Change]] = {}
        for change in committed.changes:
            index = self._index.get(change.collection)
            if index is not None:
                for live in index.candidates(change):
                    touched.setdefault(live, []).append(change)
        for live, changes in touched.items():
            self._take(live, committed.commits, changes)

    def stir(self, name: str) -> None:
        """Read again what leans on something beside the records: ``name`` is among its view's ``tables``."""
        for live in list(self._index[name].lives) if name in self._index else ():
            if live.is_reading:
                live.waiting.append((_ANY_COMMIT, None))
            else:
                self._start_reading(live)

    def _take(self, live: _Live, version: int, changes: list[Change] | None) -> None:
        if live.is_reading:
            live.waiting.append((version, changes))
            return
        if version <= live.version:
            return  # the read that it comes from has seen it
        try:
            is_changed = _patched(live.view, changes)
        except Undecided:
            if all(isinstance(listener, Held) for listener in live.listeners):
                for listener in list(live.listeners):
                    listener.fail(Undecided())
            else:
                self._start_reading(live)
            return
        self.counts.patched += 1
        live.version = version
        if is_changed:
            self._tell(live)

    # -- Reading

    def _start_reading(self, live: _Live) -> None:
        live.is_reading = True
        for listener in live.listeners:
            listener.wait()
        self.spawn(self._read_view(live))

    async def _read_view(self, live: _Live) -> None:
        def work(connection: Connection) -> tuple[int, Any]:
            (version,) = connection.execute("SELECT commits FROM pjais_state").fetchone()
            return version, live.view.work(connection)

        while live.listeners:
            self.counts.read += 1
            try:
                live.version, read = await self._read(work, brief=live.view.is_brief)
                live.view.load(read)
                waiting, live.waiting = live.waiting, []
                for version, changes in waiting:
                    if version > live.version:
                        _patched(live.view, changes)
                        live.version = version
            except Undecided:
                continue
            except Exception as error:  # noqa: BLE001 - it is told to those who watch
                live.waiting.clear()
                live.version = -1  # whatever comes next, it is read again
                live.fail(error)
            else:
                self._tell(live)
            break
        live.is_reading = False
        if live.is_read:
            for listener in live.listeners:
                listener.ready()

    # -- Telling

    def _tell(self, live: _Live) -> None:
        self._due[live] = None
        if not self._is_flushing:
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush, context=self._context)

    def _flush(self) -> None:
        self._is_flushing = False
        due, self._due = self._due, {}
        for live in due:
            if not live.is_reading and live.listeners:
                self.counts.told += live.tell()

    # -- Who watches

    def _join(self, view: View[Any], listener: Listener) -> _Live:
        live = self._lives.get(view.key)
        if self._is_closed:
            listener.close()
            return live or _Live(view)
        if live is None:
            live = self._lives[view.key] = _Live(view)
            for name in view.tables:
                self._index.setdefault(name, _Index()).add(live)
                if name in self.tables:
                    self.tables[name].is_watched = True
        live.listeners[listener] = None
        self.counts.open += not isinstance(listener, Held)
        if live.is_read:
            listener.ready()
            listener.offer(live.view.result())
        elif not live.is_reading:
            self._start_reading(live)
        return live

    def _leave(self, live: _Live, listener: Listener) -> None:
        if live.listeners.pop(listener, NOTHING) is NOTHING:
            return
        self.counts.open -= not isinstance(listener, Held)
        if live.listeners:
            return
        del self._lives[live.view.key]
        for name in live.view.tables:
            index = self._index[name]
            index.remove(live)
            if not index.lives:
                del self._index[name]
                if name in self.tables:
                    self.tables[name].is_watched = False

    def spawn(self, work: Any) -> asyncio.Task[None]:
        """Run a coroutine in the background, outside of any transaction; it ends with the client."""
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _patched(view: View[Any], changes: list[Change] | None) -> bool:
    """Take changes, None: of whatever kind, and return whether the result changed. Raises `Undecided`."""
    if changes is None:
        raise Undecided
    return view.patch(changes)


class CallbackSubscription:
    """A callback that is called until it is closed."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    def close(self) -> None:
        """Call no more."""
        self._close()


class _Live:
    """A view, the commit that it stands for (-1: none yet), and who hears of it."""

    def __init__(self, view: View[Any]) -> None:
        self.view = view
        self.version = -1
        self.is_reading = False
        self.waiting: list[tuple[int, list[Change] | None]] = []  # while it is being read
        self.listeners: dict[Listener, None] = {}
        self._told: Any = NOTHING

    @property
    def is_read(self) -> bool:
        """Whether it has a result to give now."""
        return self.version >= 0 and not self.is_reading

    def tell(self) -> bool:
        """Offer the result to everyone, unless it is what they were offered last; return whether it was offered."""
        result = self.view.result()
        if self._told is not NOTHING and result == self._told:
            return False
        self._told = result
        for listener in list(self.listeners):
            listener.offer(self.view.result())
        return True

    def fail(self, error: Exception) -> None:
        """Tell everyone that it could not be read."""
        for listener in list(self.listeners):
            listener.fail(error)


class _Index:
    """The live queries of one collection, by the values that their rows must have."""

    def __init__(self) -> None:
        self.lives: dict[_Live, None] = {}
        self._any: dict[_Live, None] = {}  # those that any row may matter to
        self._by_value: dict[int, dict[Any, dict[_Live, None]]] = {}  # by column, by value

    def add(self, live: _Live) -> None:
        """Enter a live query."""
        self.lives[live] = None
        if live.view.equals is None:
            self._any[live] = None
            return
        place, values = live.view.equals
        by_value = self._by_value.setdefault(place, {})
        for value in values:
            by_value.setdefault(value, {})[live] = None

    def remove(self, live: _Live) -> None:
        """Forget a live query."""
        del self.lives[live]
        if live.view.equals is None:
            del self._any[live]
            return
        place, values = live.view.equals
        by_value = self._by_value[place]
        for value in set(values):
            del by_value[value][live]
            if not by_value[value]:
                del by_value[value]
        if not by_value:
            del self._by_value[place]

    def candidates(self, change: Change) -> Collection[_Live]:
        """Return those to which a change can matter."""
        rows = [row for row in (change.before, change.after) if row is not None]
        if not rows or (change.kind == "updated" and None in (change.before, change.after)):
            return self.lives  # nobody watched when it was written: it does not say what it was
        if not self._by_value:
            return self._any
        found = dict(self._any)
        for place, by_value in self._by_value.items():
            for row in rows:
                found.update(by_value.get(row[place], {}))
        return found
