from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from broker.clock import FAILED_RETRY_S, US, Alarm, Instant, SystemClock
from broker.log.deadlines import Deadlines
from broker.message import Monotonic, WallUs
from tests.support.clock import FakeClock
from tests.support.patience import PATIENCE_S


def test_the_type_checker_refuses_a_time_of_the_other_clock() -> None:
    """`make check` fails if one of these ignores is not needed: then the two can be mixed."""
    now = Instant(Monotonic(7), WallUs(1_000 * US))
    Instant(now.wall_us, now.monotonic)  # type: ignore[arg-type]
    Deadlines[Monotonic]().set("a", now.wall_us)  # type: ignore[arg-type]


# The system's


async def test_the_system_s_clocks_are_those_of_the_loop_and_of_the_machine() -> None:
    clock = SystemClock()
    before_us, now, after_us = time.time_ns() // 1000, clock.now(), time.time_ns() // 1000
    assert before_us <= now.wall_us <= after_us
    assert now.monotonic == pytest.approx(asyncio.get_running_loop().time(), abs=1)
    first_us = clock.elapsed_us()
    assert first_us <= clock.elapsed_us() < first_us + 60 * US


async def test_the_system_s_timers_fire_unless_cancelled() -> None:
    clock, fired = SystemClock(), asyncio.Event()
    clock.call_later(0, lambda: pytest.fail("was cancelled")).cancel()
    clock.call_later(0.001, fired.set)
    async with asyncio.timeout(PATIENCE_S):
        await fired.wait()
        await clock.sleep(0.001)


# Alarm


class Rule:
    """Is due at the seconds that are left, and does one of them at a time."""

    def __init__(self, *seconds: float) -> None:
        self.left = [*seconds]
        self.expired: list[float] = []

    def deadline(self) -> Monotonic | None:
        return Monotonic(min(self.left)) if self.left else None

    def expire(self, now: Instant) -> None:
        if self.left and min(self.left) <= now.monotonic:
            self.left.remove(min(self.left))
            self.expired.append(now.monotonic)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(monotonic_s=0)


@pytest.fixture
async def alarm(clock: FakeClock) -> AsyncIterator[Alarm]:
    alarm = Alarm(clock)
    task = asyncio.create_task(alarm.expire_forever())
    yield alarm
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_each_rule_is_called_at_its_deadlines_and_one_timer_does_for_all(
    clock: FakeClock, alarm: Alarm
) -> None:
    one, other = Rule(10, 30), Rule(20)
    alarm.watch(one, other)
    for _ in range(40):
        assert len(clock.timers) <= 1
        clock.advance(1)
        await turns()
    assert (one.expired, other.expired) == ([10, 30], [20])
    assert clock.timers == []


async def test_an_earlier_deadline_moves_the_timer_and_a_later_one_need_not_be_told(
    clock: FakeClock, alarm: Alarm
) -> None:
    rule = Rule(10)
    alarm.watch(rule)
    rule.left = [5]
    alarm.deadline_moved()
    assert clock.timers == [5]
    rule.left = [20]
    clock.advance(5)
    await turns()
    assert (rule.expired, clock.timers) == ([], [15])


async def test_what_is_due_already_is_done_in_parts_with_turns_between(
    clock: FakeClock, alarm: Alarm
) -> None:
    rule = Rule(-1, -1, -1)
    alarm.watch(rule)
    others = 0
    async with asyncio.timeout(PATIENCE_S):
        while rule.left:
            others += 1
            await asyncio.sleep(0)
    assert others >= 3


async def test_a_deadline_at_the_very_zero_of_the_clock_is_one(
    clock: FakeClock, alarm: Alarm
) -> None:
    rule = Rule(0)
    alarm.watch(rule)
    await turns()
    assert rule.expired == [0]


async def test_a_stopped_alarm_calls_nobody(clock: FakeClock, alarm: Alarm) -> None:
    rule = Rule(10)
    alarm.watch(rule)
    alarm.stop()
    alarm.deadline_moved()
    clock.advance(20)
    await turns()
    assert (rule.expired, clock.timers) == ([], [])


async def test_a_rule_that_fails_is_logged_and_tried_again_in_a_moment(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its mistake keeps the other rules from nothing."""
    tries = 0

    class Broken(Rule):
        def expire(self, now: Instant) -> None:
            nonlocal tries
            tries += 1
            raise ZeroDivisionError

    sound = Rule(0)
    alarm = Alarm(clock)
    alarm.watch(Broken(0), sound)
    ringing = asyncio.create_task(alarm.expire_forever())
    for tried in (1, 2):
        for _ in range(10):
            await asyncio.sleep(0)
        assert tries == tried
        clock.advance(FAILED_RETRY_S)
    assert sound.expired
    assert {record.levelname for record in caplog.records} == {"CRITICAL"}
    ringing.cancel()
