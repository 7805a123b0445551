"""The runner, over a connection in memory to the model server: in the background, and step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from random import Random

import pytest

from client_sdk.errors import ClientError, ClientIdTaken, ServerRefused, ServerUnreachable, SyncTimeout
from client_sdk.sync.errors import ContentsDiffer, ServerMisbehaved, TransportClosed
from client_sdk.sync.events import Close, Lost, Tick
from client_sdk.sync.runner import Runner
from client_sdk.sync.status import Status
from client_sdk.sync.transport import MemoryTransport, Transport, memory_pair
from crdt import wire
from crdt.limits import FRAME_BYTES_MAX, PAGES_IN_FLIGHT
from tests.client_sdk.sync.model import DEVICE, GENERATION, SPACE, MemoryReplica, ModelServer, ModelSession

SECOND = "00000000-0000-7000-8000-00000000000e"


class Host:
    """Serves the model over connections in memory, and breaks them when told."""

    def __init__(self) -> None:
        self.model = ModelServer()
        self.links: list[tuple[ModelSession, MemoryTransport]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.hellos: list[wire.Hello] = []
        self.refusing: Exception | None = None  # what the next connections raise
        self.answers: list[wire.FromServer | bytes] = []  # said to the next Hellos in place of a Welcome
        self.is_mute = False

    async def connect(self) -> Transport:
        if self.refusing is not None:
            raise self.refusing
        near, far = memory_pair()
        session = self.model.connect()
        self.links.append((session, far))
        self.tasks.append(asyncio.create_task(self._serve(session, far)))
        return near

    async def _serve(self, session: ModelSession, far: MemoryTransport) -> None:
        try:
            while True:
                message = wire.decode_from_device(await far.receive())
                if isinstance(message, wire.Hello):
                    self.hellos.append(message)
                    if self.answers:
                        answer = self.answers.pop(0)
                        await far.send(answer if isinstance(answer, bytes) else wire.encode(answer))
                        continue
                session.receive(message)
                await self.flush()
        except TransportClosed:
            pass

    async def flush(self) -> None:
        """Send whatever is due to everybody."""
        for session, far in self.links:
            while not self.is_mute and (message := session.take()) is not None:
                try:
                    await far.send(wire.encode(message))
                except TransportClosed:
                    break

    async def cut(self) -> None:
        for session, far in self.links:
            session.is_open = False
            await far.cut()
        self.links.clear()

    async def close(self) -> None:
        await self.cut()
        await asyncio.gather(*self.tasks)


class GatedReplica(MemoryReplica):
    """Its pages wait before the gate, while it is shut."""

    def __init__(self, numbers: count[int]) -> None:
        super().__init__(numbers)
        self.gate, self.arrived = asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def apply_page(self, page: wire.Page) -> None:
        self.arrived.set()
        await self.gate.wait()
        await super().apply_page(page)


Make = Callable[..., Runner]


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    host = Host()
    yield host
    await host.close()


@pytest.fixture
def numbers() -> count[int]:
    return count(1)


@pytest.fixture
def replica(numbers: count[int]) -> GatedReplica:
    return GatedReplica(numbers)


@pytest.fixture
def tokens() -> list[bool]:
    """Whether each token was asked for because the last one was refused."""
    return []


@pytest.fixture
async def make(host: Host, tokens: list[bool]) -> AsyncIterator[Make]:
    made: list[Runner] = []

    async def token(is_refused: bool) -> str:
        tokens.append(is_refused)
        return f"token {len(tokens)}"

    def make(
        replica: MemoryReplica,
        *,
        device: str = DEVICE,
        connect: Callable[[], Awaitable[Transport]] = host.connect,
        on_status: Callable[[Status], None] | None = None,
    ) -> Runner:
        runner = Runner(
            replica,
            connect,
            space=SPACE,
            device=device,
            token=token,
            now_ms=lambda: host.model.now_ms - 40,
            random=lambda: 0.0,
            on_status=on_status,
        )
        made.append(runner)
        return runner

    yield make
    for runner in made:
        await runner.stop()


@pytest.fixture
def runner(make: Make, replica: GatedReplica) -> Runner:
    return make(replica)


def write(replica: MemoryReplica, runner: Runner, update: bytes = b"good") -> None:
    replica.write("notes", "r1", update)
    runner.committed()


async def until(runner: Runner, is_so: Callable[[Status], bool]) -> Status:
    async with asyncio.timeout(10):
        async for status in runner.statuses():
            if is_so(status):
                return status
    raise AssertionError("statuses() does not end")


# ------------------------------------------------------------------------------------------------ in the background


async def test_two_devices_end_equal_and_know_it(host: Host, make: Make, numbers: count[int]) -> None:
    replicas = [MemoryReplica(numbers), MemoryReplica(numbers)]
    runners = [make(replicas[0]), make(replicas[1], device=SECOND)]
    for number in range(20):
        replicas[number % 2].write("notes", f"r{number}", b"good %d" % number)
    for runner in runners:
        runner.start()
    for _ in range(2):
        for runner in runners:
            await runner.synced(10)
    assert replicas[0].parts == replicas[1].parts == host.model.parts
    assert len(host.model.log) == 20
    for runner in runners:
        assert runner.status == Status("synced", 0, 20, 20, verified=True)


async def test_a_commit_is_sent_at_once_and_reaches_the_other_device(
    host: Host, make: Make, numbers: count[int]
) -> None:
    near, far = MemoryReplica(numbers), MemoryReplica(numbers)
    sender, receiver = make(near), make(far, device=SECOND)
    sender.start()
    receiver.start()
    await sender.synced(10)
    await receiver.synced(10)
    for number in range(50):
        write(near, sender, b"good %d" % number)
        await until(receiver, lambda status, number=number: status.cursor == number + 1)  # type: ignore[misc]
    assert far.parts == near.parts


async def test_the_clock_is_corrected_by_what_welcome_says(runner: Runner, replica: GatedReplica) -> None:
    runner.start()
    await runner.synced(10)
    assert replica.offset_ms == 40


async def test_a_connection_that_breaks_is_made_again_and_nothing_is_lost(
    host: Host, runner: Runner, replica: GatedReplica
) -> None:
    runner.start()
    for number in range(3):
        write(replica, runner, b"good %d" % number)
        await runner.synced(10)
        await host.cut()
        await until(runner, lambda status: status.state == "offline")
    write(replica, runner, b"good 3")
    await runner.synced(10)
    assert len(host.hellos) == 4
    assert sorted(row.edit.update for row in host.model.log) == [b"good %d" % number for number in range(4)]


async def test_a_server_that_is_not_there_is_tried_again(host: Host, runner: Runner) -> None:
    host.refusing = ServerUnreachable("http://127.0.0.1:1", "refused")
    runner.start()
    status = await until(runner, lambda status: status.last_error is not None)
    assert (status.state, status.last_error) == ("offline", host.refusing)
    host.refusing = None
    await runner.synced(10)
    assert runner.status.last_error is None


async def test_a_commit_while_offline_is_counted_and_ends_a_long_wait(
    host: Host, runner: Runner, replica: GatedReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_sdk.sync.backoff._S_MIN", 25.0)
    monkeypatch.setattr("client_sdk.sync.runner._PATIENCE_S", 0.0)
    host.refusing = ServerUnreachable("http://127.0.0.1:1", "refused")
    runner.start()
    await until(runner, lambda status: status.last_error is not None)
    host.refusing = None
    write(replica, runner)
    await until(runner, lambda status: status.pending == 1)
    await until(runner, lambda status: status.state == "synced")
    assert not replica.outbox


async def test_a_server_that_asks_for_time_is_given_it_whatever_is_committed(
    host: Host, runner: Runner, replica: GatedReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client_sdk.sync.runner._PATIENCE_S", 0.0)
    host.answers = [wire.Failure("overloaded", "later", 500_000)]
    runner.start()
    await until(runner, lambda status: status.last_error is not None)
    write(replica, runner)
    await until(runner, lambda status: status.pending == 1)
    with pytest.raises(SyncTimeout):
        await runner.synced(0.05)
    assert len(host.hellos) == 1


async def test_a_hopeless_refusal_waits_until_somebody_asks(host: Host, runner: Runner) -> None:
    host.answers = [wire.Failure("not_in_space", "join first")]
    runner.start()
    status = await until(runner, lambda status: status.state == "error")
    assert isinstance(status.last_error, ServerRefused)
    with pytest.raises(ServerRefused):
        await runner.synced(10)
    runner.retry_now()
    await until(runner, lambda status: status.state == "synced")
    assert len(host.hellos) == 2


async def test_a_refused_token_is_replaced_at_once(host: Host, runner: Runner, tokens: list[bool]) -> None:
    host.answers = [wire.Failure("unauthorized", "expired")]
    runner.start()
    await runner.synced(10)
    assert tokens == [False, True]
    assert [hello.token for hello in host.hellos] == ["token 1", "token 2"]


async def test_a_taken_client_id_is_left_and_the_pending_work_goes_on_under_another(
    host: Host, runner: Runner, replica: GatedReplica
) -> None:
    host.model.owners[replica.client] = ("somebody else", 1)
    taken = replica.client
    write(replica, runner)
    runner.start()
    await until(runner, lambda status: isinstance(status.last_error, ClientIdTaken))
    await runner.synced(10)
    assert [row.client for row in host.model.log] == [replica.client]
    assert replica.client != taken


async def test_what_is_no_frame_is_an_error_and_is_tried_again(host: Host, runner: Runner) -> None:
    host.answers = [b"\x00\xc1"]
    runner.start()
    await until(runner, lambda status: isinstance(status.last_error, ServerMisbehaved))
    await until(runner, lambda status: status.state == "synced")


async def test_a_full_disk_is_an_error_and_sync_goes_on_once_there_is_room(
    host: Host, runner: Runner, replica: GatedReplica
) -> None:
    replica.failing = ClientError("no room left")
    write(replica, runner)
    runner.start()
    status = await until(runner, lambda status: status.state == "error")
    assert str(status.last_error) == "no room left"
    await until(runner, lambda status: status.state == "synced" and status.verified is True)
    assert not replica.outbox


async def test_a_bug_is_shown_and_crashes_the_task(runner: Runner, replica: GatedReplica) -> None:
    replica.failing = ZeroDivisionError("a bug")
    write(replica, runner)
    with pytest.raises(ZeroDivisionError):
        await runner.run()
    assert runner.status.state == "error"
    assert isinstance(runner.status.last_error, ZeroDivisionError)


async def test_a_difference_is_an_error_that_synced_raises(runner: Runner, replica: GatedReplica) -> None:
    replica.parts.add(("notes", "r1", b"out of nowhere"))
    runner.start()
    with pytest.raises(ContentsDiffer):
        await runner.synced(10)
    assert runner.status.verified is False


async def test_an_update_that_fits_no_frame_is_an_error(
    host: Host, runner: Runner, replica: GatedReplica
) -> None:
    write(replica, runner, Random(1).randbytes(FRAME_BYTES_MAX + 1))
    runner.start()
    status = await until(runner, lambda status: status.state == "error")
    assert isinstance(status.last_error, ServerRefused)
    assert status.last_error.code == "too_large"
    assert "FRAME_BYTES_MAX" in str(status.last_error)


async def test_receiving_goes_on_while_a_page_is_being_applied(
    host: Host, runner: Runner, replica: GatedReplica, make: Make, numbers: count[int]
) -> None:
    other = MemoryReplica(numbers)
    runner.start()
    await runner.synced(10)
    replica.gate.clear()
    sender = make(other, device=SECOND)
    sender.start()
    for number in range(4 * host.model.page_entries):
        other.write("notes", f"r{number}", b"good %d" % number)
        if number == 0:  # alone, so that it is a page of its own
            sender.committed()
            await replica.arrived.wait()
    sender.committed()
    await sender.synced(10)
    while len(runner._inbox) < PAGES_IN_FLIGHT - 1:  # noqa: ASYNC110 - it rings no bell
        await asyncio.sleep(0)
    assert runner.status.cursor == 0
    replica.gate.set()
    await runner.synced(10)
    assert replica.parts == other.parts


# ------------------------------------------------------------------------------------------- starting and stopping


async def test_stopping_says_goodbye_and_leaves_the_status_offline(host: Host, runner: Runner) -> None:
    runner.start()
    runner.start()
    await runner.synced(10)
    _, far = host.links[0]
    await runner.stop()
    await runner.stop()
    with pytest.raises(TransportClosed) as closed:
        await far.receive()
    assert closed.value.code == 1000
    assert runner.status == Status("offline", verified=True)
    runner.start()
    await runner.synced(10)
    assert len(host.hellos) == 2


async def test_stopping_before_starting_does_nothing(runner: Runner) -> None:
    await runner.stop()
    runner.start()
    await runner.synced(10)


async def start_amid_a_page(host: Host, runner: Runner, replica: GatedReplica) -> None:
    """Leave the runner waiting within `apply_page`."""
    replica.gate.clear()
    host.model.push(SECOND, wire.Push(SPACE, 900, 901, 1, [wire.Edit("notes", "r1", b"good")]))
    runner.start()
    await replica.arrived.wait()


async def test_stopping_waits_for_what_is_being_made_durable(
    host: Host, runner: Runner, replica: GatedReplica
) -> None:
    await start_amid_a_page(host, runner, replica)
    stopping = asyncio.create_task(runner.stop())
    await asyncio.sleep(0)
    replica.gate.set()
    await stopping
    assert replica.position == 1
    assert runner.status == Status("offline", cursor=1, head=1)


async def test_a_cancelled_run_leaves_nothing_open_and_can_be_taken_up_again(
    host: Host, runner: Runner, replica: GatedReplica
) -> None:
    await start_amid_a_page(host, runner, replica)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "sync"]
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert runner.status.state == "offline"
    with pytest.raises(TransportClosed):
        await host.links[0][1].receive()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "sync listener"]
    replica.gate.set()
    runner.start()
    await runner.synced(10)
    assert replica.position == 1


async def test_stopping_ends_a_hopeless_wait_and_a_long_one(host: Host, runner: Runner) -> None:
    host.answers = [wire.Failure("not_in_space", "no"), wire.Failure("overloaded", "later", 500_000)]
    for _ in range(2):
        runner.start()
        await until(runner, lambda status: isinstance(status.last_error, ServerRefused))
        await runner.stop()
        assert runner.status == Status("offline")


# ---------------------------------------------------------------------------------------------------------- the status


async def test_a_slow_reader_of_statuses_gets_the_newest(runner: Runner, replica: GatedReplica) -> None:
    statuses = runner.statuses()
    assert await anext(statuses) == Status("offline")
    for number in range(5):
        write(replica, runner, b"good %d" % number)
    runner.start()
    await runner.synced(10)
    assert (await anext(statuses)) == runner.status
    await statuses.aclose()


async def test_a_listener_that_raises_does_not_stop_the_sync(make: Make, replica: GatedReplica) -> None:
    heard: list[Status] = []

    def listen(status: Status) -> None:
        heard.append(status)
        raise ZeroDivisionError

    runner = make(replica, on_status=listen)
    runner.start()
    await runner.synced(10)
    assert [status.state for status in heard][:2] == ["connecting", "synced"]


async def test_synced_that_comes_too_late_says_what_is_missing(
    host: Host, runner: Runner, replica: GatedReplica
) -> None:
    host.is_mute = True
    write(replica, runner)
    runner.start()
    await until(runner, lambda status: status.pending == 1)
    with pytest.raises(SyncTimeout, match="1 updates wait") as late:
        await runner.synced(0.05)
    assert late.value.pending == 1


async def test_synced_is_not_fooled_by_a_commit_that_the_engine_has_not_heard_of(
    runner: Runner, replica: GatedReplica
) -> None:
    runner.start()
    await runner.synced(10)
    for verified in (True, False):
        write(replica, runner, b"good %r" % verified)
        assert runner.status.state == "synced", "it cannot know yet"
        await runner.synced(10, verified=verified)
        assert not replica.outbox


async def test_synced_means_now_not_when_it_was_last_looked_at(
    host: Host, runner: Runner, replica: GatedReplica
) -> None:
    runner.start()
    await runner.synced(10)
    # The server has news, and has not told of it.
    host.model.push(SECOND, wire.Push(SPACE, 900, 901, 1, [wire.Edit("notes", "r1", b"good")]))
    await runner.synced(10)
    assert replica.position == 1


# -------------------------------------------------------------------------------------------------------- step by step


async def test_a_simulation_can_take_each_step_itself(make: Make, replica: GatedReplica) -> None:
    near, far = memory_pair()

    async def connect() -> Transport:
        return near

    runner = make(replica, connect=connect)
    replica.write("notes", "r1", b"good")
    await runner.dial()
    assert isinstance(wire.decode_from_device(await far.receive()), wire.Hello)
    await runner.deliver(
        wire.encode(wire.Welcome(wire.PROTOCOL, 1, [wire.SpaceState(SPACE, GENERATION, 0, {})]))
    )
    push = wire.decode_from_device(await far.receive())
    assert isinstance(push, wire.Push)
    await runner.feed(Tick(0))
    await runner.deliver(wire.encode(wire.Ack(SPACE, push.incarnation, 1, [])))
    assert not replica.outbox
    broken = TransportClosed(1006)
    await runner.feed(Lost(broken))
    assert runner.ending == Close(broken, retry=True, healthy=True)
