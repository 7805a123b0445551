"""Decides how one device stays in step with the server: events in, instructions out, and nothing else.

No I/O, no clock, no chance: the `runner` brings what happened (`events`) and does what comes back. The protocol is
`crdt.wire`'s. What is promised here:

- Everything in the outbox is sent, in order, at most ``PUSHES_IN_FLIGHT`` pushes ahead of their acknowledgements, and
  sent again after each new connection until an `Ack` of this connection covers it. Nothing is taken off the outbox for
  any other reason: not even for `Welcome.held`, since the refusals come only with the `Ack`.
- Each push has one `Ack`, in the order of the pushes.
- Pages are applied one at a time, each beginning exactly where the one before it ended. `Received` goes out only
  when a page is durable.
- When nothing is pending and the cursor is at the head, both sides' digests are compared (`comparison`). A difference
  is shown in the status until something changes, and sync goes on.
- The server is not trusted (`checks`): a message that the protocol does not allow at this point changes nothing and
  ends the session as `ServerMisbehaved`. A server that owes an answer and stays silent is left as well.

The runner carries out each event's instructions to the end before it brings `Lost` or `Dialling`; other events may come
in between.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from typing import Final, Literal

from client_sdk.errors import ClientIdTaken, NotRegistered, ProtocolMismatch, ServerLostData, ServerRefused
from client_sdk.sync.checks import (
    Flight,
    check_ack,
    check_fetched,
    check_page,
    check_verified,
    check_welcome,
    require,
)
from client_sdk.sync.comparison import Comparison
from client_sdk.sync.errors import ServerMisbehaved, TransportClosed
from client_sdk.sync.events import (
    Acknowledge,
    Acknowledged,
    Applied,
    ApplyDocuments,
    ApplyPage,
    BatchLoaded,
    Close,
    Committed,
    Confirm,
    Connected,
    Dialling,
    DigestRead,
    Event,
    Failed,
    Instruction,
    LoadPending,
    Lost,
    ObserveTime,
    OutboxPlace,
    PendingBatch,
    ReadDigest,
    Received,
    Rehome,
    RenewToken,
    Report,
    Send,
    SetGeneration,
    Stopped,
    Tick,
    Wanted,
)
from client_sdk.sync.status import State, Status
from crdt import wire
from crdt.clock import offset_to_server
from crdt.limits import PAGES_IN_FLIGHT, PUSH_BYTES_TARGET, PUSH_EDITS_MAX, PUSHES_IN_FLIGHT

__all__ = ["Engine"]

# A server that owes us an answer has this long: pings show only that its event loop turns, not that it gets anywhere.
_SILENCE_MS_MAX: Final = 30_000
# "Come back in ten minutes" is the longest that a server may ask of us.
_RETRY_AFTER_MS_MAX: Final = 600_000
# What the server writes is shown to people: a sentence, not a book.
_MESSAGE_CHARACTERS_MAX: Final = 500

# Refusals that no further attempt mends: somebody has to do something first.
_HOPELESS: Final = frozenset({"not_in_space", "protocol_mismatch", "unknown_device"})
# Refusals that are mended here and tried again at once; if they come again with no progress between, after a while.
_EXCUSED_ONCE: Final = frozenset({"client_id_taken", "out_of_order", "unauthorized"})


class Engine:
    """The sync of ``space`` on ``device`` (both UUIDs as 36 characters). ``status`` is the newest that was reported."""

    def __init__(self, *, space: str, device: str, software: str = "") -> None:
        self.space = space
        self.device = device
        self.software = software
        self.status = Status()
        self._instructions: list[Instruction] = []
        self._phase: Literal["offline", "dialling", "greeting", "live"] = "offline"
        self._alarmed = False
        self._last_error: Exception | None = None
        self._excused: set[str] = set()
        self._edits_max, self._bytes_max = PUSH_EDITS_MAX, PUSH_BYTES_TARGET
        self._pending = self._cursor = self._head = 0
        self._wanted: dict[tuple[str, str], None] = {}
        self._comparison = Comparison()
        self._reset()

    def _reset(self) -> None:
        """Forget what belongs to one connection."""
        self._generation = ""
        self._hello_ms = 0
        self._held: dict[int, int] = {}
        self._flights: deque[Flight] = deque()
        self._is_loading = False
        self._is_dry = False  # the outbox gave nothing more, whatever the count says
        self._is_turning = False  # the next batch is a later incarnation's
        self._acknowledging = 0
        self._pages: deque[wire.Page | wire.Documents] = deque()  # the first one is being applied
        self._reach = self._cursor  # where the last of them ends
        self._fetching: tuple[str, str] | None = None
        self._silent_since: int | None = None

    def handle(self, event: Event) -> list[Instruction]:
        """Return what is to be done about an event, in that order."""
        self._instructions = []
        try:
            self._decide(event)
        except ServerMisbehaved as error:
            self._instructions = []
            self._close(error, alarm=True)
        if self._phase == "live":
            self._load()
            self._fetch()
            self._verify()
        self._report()
        return self._instructions

    def _decide(self, event: Event) -> None:
        match event:
            case Received(message, now_ms):
                if self._phase in {"greeting", "live"}:
                    self._silent_since = None
                    self._receive(message, now_ms)
            case Committed(pending):
                self._pending, self._is_dry = pending, False
                self._comparison.change()
            case BatchLoaded(batch):
                self._push(batch)
            case Acknowledged(pending):
                self._acknowledging = max(self._acknowledging - 1, 0)
                self._pending, self._is_dry = pending, False
            case Applied(through):
                self._applied(through)
            case DigestRead():
                self._compare(event)
            case Wanted(collection, record):
                self._wanted[collection, record] = None
                self._comparison.change()
            case Confirm():
                self._comparison.change()
            case Tick(now_ms):
                self._watch_silence(now_ms)
            case Dialling():
                self._reset()
                self._phase = "dialling"
            case Connected():
                self._greet(event)
            case Lost(error):
                self._lose(error)
            case Failed(error):
                self._close(error, alarm=True, retry=not isinstance(error, NotRegistered))
            case Stopped():
                self._close(None, retry=False)

    # ------------------------------------------------------------------------------- from Hello to Welcome

    def _greet(self, event: Connected) -> None:
        self._cursor, self._pending = event.position, event.pending
        self._head = max(self._head, event.position)
        self._reset()
        self._comparison = Comparison()
        self._phase = "greeting"
        self._generation, self._hello_ms = event.generation, event.now_ms
        hello = wire.Hello(
            protocol=wire.PROTOCOL,
            token=event.token,
            device=self.device,
            incarnation=event.incarnation,
            client=event.client,
            cursors=[wire.Cursor(self.space, event.generation, event.position)],
            now_ms=event.now_ms,
            software=self.software,
        )
        self._instructions.append(Send(hello))

    def _receive(self, message: wire.FromServer, now_ms: int) -> None:
        if isinstance(message, wire.Failure):
            self._fail(message)
        elif self._phase == "greeting":
            require(isinstance(message, wire.Welcome), "it spoke before it had answered Hello")
            assert isinstance(message, wire.Welcome)
            self._welcome(message, now_ms)
        else:
            match message:
                case wire.Ack():
                    self._acknowledge(message)
                case wire.Documents(after=0, through=0) if message.states or self._fetching:
                    self._take_fetched(message)
                case wire.Page() | wire.Documents():
                    self._take(message)
                case wire.Verified():
                    self._take_verified(message)
                case _:
                    raise ServerMisbehaved("it greeted twice")

    def _welcome(self, message: wire.Welcome, now_ms: int) -> None:
        if message.protocol != wire.PROTOCOL:
            mismatch = ProtocolMismatch(ours=wire.PROTOCOL, theirs=message.protocol)
            self._close(mismatch, alarm=True, retry=False)
            return
        state = check_welcome(message, space=self.space)
        if self._generation not in {"", state.generation} or state.head < self._cursor:
            # The same generation with less in it: a copy was put back, and nobody gave it a new one.
            ours = f"{self._generation} up to {self._cursor}"
            lost = ServerLostData(ours=ours, theirs=f"{state.generation} up to {state.head}")
            self._close(lost, alarm=True, retry=False)
            return
        self._phase = "live"
        self._alarmed, self._last_error = False, None
        self._excused.discard("unauthorized")
        self._head, self._held = state.head, state.held
        self._instructions.append(ObserveTime(offset_to_server(message.now_ms, self._hello_ms, now_ms)))
        if self._generation != state.generation:
            self._generation = state.generation
            self._instructions.append(SetGeneration(state.generation))

    # --------------------------------------------------------------------------------------- the outbox

    def _load(self) -> None:
        waiting = self._pending - sum(flight.last - flight.first + 1 for flight in self._flights)
        is_turning = self._is_turning and self._flights
        is_held_up = self._is_loading or self._is_dry or self._acknowledging or is_turning
        if waiting <= 0 or is_held_up or len(self._flights) >= PUSHES_IN_FLIGHT:
            return
        # With nothing in flight the next batch is the outbox's first: all before it is acknowledged and gone.
        after = OutboxPlace(self._flights[-1].incarnation, self._flights[-1].last) if self._flights else None
        self._is_loading = True
        self._instructions.append(LoadPending(after, self._edits_max, self._bytes_max))

    def _push(self, batch: PendingBatch | None) -> None:
        self._is_loading = False
        if self._phase != "live":
            return
        if batch is None:
            self._is_dry = True
            return
        # Within an incarnation the server sees what is missing; between two, only this keeps the order.
        self._is_turning = bool(self._flights) and batch.incarnation != self._flights[-1].incarnation
        if self._is_turning:
            return
        last = batch.first + len(batch.edits) - 1
        self._flights.append(Flight(batch.incarnation, batch.first, last))
        push = wire.Push(self.space, batch.incarnation, batch.client, batch.first, batch.edits)
        self._instructions.append(Send(push))

    def _acknowledge(self, ack: wire.Ack) -> None:
        held = self._held.get(ack.incarnation, 0)
        refusals = check_ack(ack, space=self.space, flights=self._flights, held=held)
        flight = self._flights.popleft()
        self._acknowledging += 1
        self._excused.clear()
        self._instructions.append(Acknowledge(flight.incarnation, flight.last, refusals))

    # ------------------------------------------------------------------------------------------ the log

    def _take(self, page: wire.Page | wire.Documents) -> None:
        check_page(page, space=self.space)
        if page.through > self._reach:
            require(page.after == self._reach, f"a page from {page.after} where {self._reach} was the end")
            require(len(self._pages) < PAGES_IN_FLIGHT + 1, "more pages than the window allows")
            self._reach = page.through
            self._queue(page)
        elif not self._pages:
            # A repeat, or a page of nothing: durable as it is, and it takes up room in the server's window.
            self._instructions.append(Send(wire.Received(self.space, self._cursor)))
        if page.head > self._head:
            self._head = page.head
            self._comparison.change()

    def _take_fetched(self, documents: wire.Documents) -> None:
        check_fetched(documents, space=self.space, wanted=self._fetching)
        if documents.states:
            self._queue(documents)
        else:
            self._fetched()

    def _queue(self, page: wire.Page | wire.Documents) -> None:
        self._pages.append(page)
        self._comparison.change()
        if len(self._pages) == 1:
            self._apply_first()

    def _apply_first(self) -> None:
        first = self._pages[0]
        self._instructions.append(ApplyPage(first) if isinstance(first, wire.Page) else ApplyDocuments(first))

    def _applied(self, through: int) -> None:
        if self._phase != "live" or not self._pages or self._pages[0].through != through:
            return  # of a connection that is gone; its cursor is read afresh
        self._pages.popleft()
        if through == 0:
            self._fetched()
        else:
            self._cursor = through
            self._comparison.move()
            self._instructions.append(Send(wire.Received(self.space, through)))
        self._comparison.change()
        if self._pages:
            self._apply_first()

    def _fetch(self) -> None:
        """Ask for one missing document at a time."""
        if self._fetching is None and self._wanted:
            self._fetching = next(iter(self._wanted))
            self._instructions.append(Send(wire.Fetch(self.space, *self._fetching)))

    def _fetched(self) -> None:
        if self._fetching is not None:
            self._wanted.pop(self._fetching, None)
            self._fetching = None

    # ----------------------------------------------------------------------------------- are we equal?

    def _is_settled(self) -> bool:
        is_busy = self._pending or self._flights or self._acknowledging or self._pages or self._wanted
        return not is_busy and self._cursor == self._head

    def _verify(self) -> None:
        if self._is_settled() and self._comparison.ask():
            self._instructions.append(Send(wire.Verify(self.space, self._cursor)))

    def _take_verified(self, message: wire.Verified) -> None:
        check_verified(message, space=self.space, cursor=self._cursor)
        if message.position == self._cursor and self._comparison.answer(message):
            self._instructions.append(ReadDigest())

    def _compare(self, ours: DigestRead) -> None:
        if ours.pending:
            # A write came between, and the digest may hold it already.
            self._pending, self._is_dry = ours.pending, False
            self._comparison.change()
        self._comparison.compare(ours.digest, ours.records)

    # ------------------------------------------------------------------------------------------ the end

    def _fail(self, failure: wire.Failure) -> None:
        message = failure.message[:_MESSAGE_CHARACTERS_MAX]
        error: Exception = ServerRefused(failure.code[:_MESSAGE_CHARACTERS_MAX], message)
        is_first_time = failure.code not in self._excused
        at_once = 0 if is_first_time else None
        if failure.code in _EXCUSED_ONCE:
            self._excused.add(failure.code)
        match failure.code:
            case "unauthorized":
                self._instructions.append(RenewToken())
                self._close(error, alarm=not is_first_time, delay_ms=at_once)
            case "client_id_taken":
                # It answers Hello, which names this opening's id, or the oldest push that has no Ack.
                taken = self._flights[0].incarnation if self._flights else None
                self._instructions.append(Rehome(taken))
                self._close(ClientIdTaken(message), alarm=not is_first_time, delay_ms=at_once)
            case "out_of_order":
                self._close(error, alarm=not is_first_time, delay_ms=at_once)
            case "too_large" if self._edits_max > 1:
                self._edits_max, self._bytes_max = max(self._edits_max // 4, 1), max(self._bytes_max // 4, 1)
                self._close(error, delay_ms=0)
            case "cursor_ahead":
                ours = f"{self._generation} up to {self._cursor}"
                self._close(ServerLostData(ours=ours, theirs="shorter"), alarm=True, retry=False)
            case "protocol_mismatch":
                if theirs := re.search(r"the server (\d{1,9})\b", message):
                    error = ProtocolMismatch(ours=wire.PROTOCOL, theirs=int(theirs[1]))
                self._close(error, alarm=True, retry=False)
            case _:
                after = failure.retry_after_ms
                delay_ms = None if after is None else min(max(after, 0), _RETRY_AFTER_MS_MAX)
                can_help = after is not None and failure.code not in _HOPELESS
                self._close(error, alarm=not can_help, retry=can_help, delay_ms=delay_ms)

    def _lose(self, error: Exception) -> None:
        code = error.code if isinstance(error, ServerRefused) else ""
        is_hopeless = isinstance(error, ProtocolMismatch | NotRegistered) or code in _HOPELESS
        self._close(
            error, alarm=is_hopeless or bool(code), retry=not is_hopeless, healthy=self._phase == "live"
        )

    def _watch_silence(self, now_ms: int) -> None:
        owes_page = self._cursor < self._head and not self._pages
        owes = bool(self._flights) or self._fetching is not None or owes_page
        if not (self._phase == "greeting" or (self._phase == "live" and owes)):
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now_ms
        elif now_ms - self._silent_since >= _SILENCE_MS_MAX:
            self._close(TransportClosed(1006, f"no answer for {_SILENCE_MS_MAX // 1000} s"))

    def _close(
        self,
        error: Exception | None,
        *,
        alarm: bool = False,
        retry: bool = True,
        delay_ms: int | None = None,
        healthy: bool = False,
    ) -> None:
        was_open = self._phase != "offline"
        if was_open or alarm or error is None:
            self._phase = "offline"
            self._reset()
            self._alarmed, self._last_error = alarm, error
        if was_open:
            self._instructions.append(Close(error, retry=retry, delay_ms=delay_ms, healthy=healthy))

    # ------------------------------------------------------------------------------------------- status

    def _state(self) -> State:
        if self._phase == "offline":
            return "error" if self._alarmed else "offline"
        if self._phase != "live":
            return "connecting"
        if self._comparison.verified is False:
            return "error"
        return "synced" if self._is_settled() else "syncing"

    def _report(self) -> None:
        status = replace(
            self.status,
            state=self._state(),
            pending=self._pending,
            cursor=self._cursor,
            head=max(self._head, self._cursor),
            verified=self._comparison.verified,
            last_error=self._last_error or self._comparison.difference,
        )
        if status != self.status:
            self.status = status
            self._instructions.insert(0, Report(status))
