from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from broker.counters import Counters
from broker.documents import WillDocument
from broker.log.log import Log
from broker.registry.wills import Wills
from tests.support.world import Disk

NOW_S = 1000


class Timers:
    """The loop's timers, which this test lets fire."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], object]]] = []

    def call_later(
        self, delay_s: float, callback: Callable[..., object], *args: object
    ) -> SimpleNamespace:
        timer = (delay_s, lambda: callback(*args))
        self.set.append(timer)
        return SimpleNamespace(cancel=lambda: self.set.remove(timer))

    def fire(self) -> None:
        for timer in list(self.set):
            timer[1]()


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()
    monkeypatch.setattr(
        "broker.registry.wills.asyncio", SimpleNamespace(get_running_loop=lambda: timers)
    )
    times = SimpleNamespace(time_ns=lambda: NOW_S * 1_000_000_000)
    monkeypatch.setattr("broker.registry.wills.time", times)
    return timers


@pytest.fixture
async def disk() -> Disk:
    disk = Disk()
    await disk.open()
    return disk


class Run:
    """One run of a broker, as far as wills go."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.log = Log(disk, Counters(), append_bytes_max=1 << 20)
        self.wills = Wills(self.log)

    async def after_crash(self, *, durable: bool = True) -> Run:
        """What the run before left is taken up; the client's session was `durable` or not."""
        await self.wills.start(lambda client_id: durable and client_id == "c")
        return self

    async def connect(self, will: WillDocument | None) -> None:
        self.log.append([], operations=self.wills.connected("c", will))
        await self.commit()

    async def commit(self) -> None:
        task = asyncio.create_task(self.log.commit_forever())
        await self.log.flushed()
        task.cancel()

    async def published(self) -> list[tuple[str, bytes, int]]:
        await self.commit()
        read = await self.disk.read(self.disk.log_start, self.disk.high_watermark)
        return [(m.topic, m.payload, m.qos) for m in read.messages]


def will(*, delay_s: int = 0, expiry_s: int | None = None) -> WillDocument:
    return WillDocument("c", "will", b"gone", 1, True, b"", expiry_s, delay_s, None)


GONE = [("will", b"gone", 1)]


async def test_a_lost_client_s_will_is_published_and_removed_in_one_commit(
    disk: Disk, timers: Timers
) -> None:
    """[MQTT-3.1.2-8]"""
    run = Run(disk)
    await run.connect(will(expiry_s=5))
    assert await disk.scan(WillDocument) == [will(expiry_s=5)]
    run.wills.client_lost("c", session_expiry_s=100)
    assert await run.published() == GONE
    assert len(disk.commits) == 2
    assert await disk.scan(WillDocument) == []
    [message] = await disk.fetch(await disk.retained(["will"]))
    assert message.publisher == "c"
    assert message.expires_at_us == (NOW_S + 5) * 1_000_000


async def test_a_client_that_says_goodbye_has_no_will_any_more(disk: Disk, timers: Timers) -> None:
    """[MQTT-3.14.4-3]"""
    run = Run(disk)
    await run.connect(will())
    run.wills.withdrawn("c")
    run.wills.client_lost("c", session_expiry_s=100)
    assert await run.published() == []
    assert await disk.scan(WillDocument) == []


async def test_a_will_waits_for_its_delay(disk: Disk, timers: Timers) -> None:
    run = Run(disk)
    await run.connect(will(delay_s=30))
    run.wills.client_lost("c", session_expiry_s=100)
    assert await run.published() == []
    assert [delay_s for delay_s, _ in timers.set] == [30]
    timers.fire()
    assert await run.published() == GONE
    assert timers.set == []


async def test_a_client_that_comes_back_in_time_prevents_its_will(
    disk: Disk, timers: Timers
) -> None:
    """[MQTT-3.1.3-9]"""
    run = Run(disk)
    await run.connect(will(delay_s=30))
    run.wills.client_lost("c", session_expiry_s=100)
    await run.connect(None)
    assert timers.set == []
    assert await disk.scan(WillDocument) == []


async def test_a_will_waits_no_longer_than_its_session_lasts(disk: Disk, timers: Timers) -> None:
    """[MQTT-3.1.2-8]"""
    run = Run(disk)
    await run.connect(will(delay_s=30))
    run.wills.client_lost("c", session_expiry_s=20)
    assert [delay_s for delay_s, _ in timers.set] == [20]
    run.wills.session_ended("c")
    assert await run.published() == GONE
    assert timers.set == []


async def test_a_connected_client_s_will_does_not_end_with_an_older_session(
    disk: Disk, timers: Timers
) -> None:
    run = Run(disk)
    await run.connect(will())
    run.wills.session_ended("c")
    assert await run.published() == []


async def test_a_crash_of_the_broker_loses_its_clients_and_not_their_wills(
    disk: Disk, timers: Timers
) -> None:
    run = Run(disk)
    await run.connect(will())
    run = await Run(disk).after_crash()
    assert await run.published() == GONE
    assert await disk.scan(WillDocument) == []


@pytest.mark.parametrize("was_lost", [False, True])
async def test_a_crash_ends_sessions_that_nothing_keeps_and_so_their_wills_delays(
    disk: Disk, timers: Timers, was_lost: bool
) -> None:
    """[MQTT-3.1.2-8] The Will Delay Interval, or the end of the session if that is earlier."""
    run = Run(disk)
    await run.connect(will(delay_s=30))
    if was_lost:
        run.wills.client_lost("c", session_expiry_s=100)
    await run.commit()
    run.wills.stop()
    run = await Run(disk).after_crash(durable=False)
    assert await run.published() == GONE
    assert (await disk.scan(WillDocument), timers.set) == ([], [])


async def test_a_crash_lets_the_delay_of_a_kept_session_begin(disk: Disk, timers: Timers) -> None:
    run = Run(disk)
    await run.connect(will(delay_s=30))
    run = await Run(disk).after_crash()
    assert await run.published() == []
    assert [delay_s for delay_s, _ in timers.set] == [30]


async def test_a_delay_goes_on_over_a_restart(
    disk: Disk, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(disk)
    await run.connect(will(delay_s=30))
    run.wills.client_lost("c", session_expiry_s=100)
    await run.commit()
    run.wills.stop()
    assert timers.set == []
    times = SimpleNamespace(time_ns=lambda: (NOW_S + 12) * 1_000_000_000)
    monkeypatch.setattr("broker.registry.wills.time", times)
    run = await Run(disk).after_crash()
    assert [delay_s for delay_s, _ in timers.set] == [18]


async def test_a_will_that_a_full_disk_cannot_take_is_published_later(
    disk: Disk, timers: Timers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.log.log.FULL_RETRY_S", 0)
    run = Run(disk)
    await run.connect(will())
    disk.full = True
    run.wills.client_lost("c", session_expiry_s=100)
    task = asyncio.create_task(run.log.commit_forever())
    for _ in range(5):
        await asyncio.sleep(0)
    disk.full = False
    await run.log.flushed()
    task.cancel()
    assert await run.published() == GONE
