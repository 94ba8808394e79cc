"""The answers of a line connection come in the order of its commands."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.clients.line_answers import Answers
from broker.lines.connection import LineConnection
from broker.message import Monotonic
from tests.support.clients import NOTHING_TO_TELL, services
from tests.support.world import Disk, World, running


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk(), NOTHING_TO_TELL) as world:
        yield world


class Answering:
    def __init__(self, world: World) -> None:
        now = world.clock.monotonic()
        self.connection = LineConnection(
            now=now, line_bytes_max=100, topic_bytes_max=100, topic_levels_max=10
        )
        self.answers = Answers(self.connection, services(world, NOTHING_TO_TELL), Monotonic(now))

    @property
    def lines(self) -> list[str]:
        return self.connection.data_to_send().decode().splitlines()


async def test_an_answer_waits_for_those_before_it(world: World) -> None:
    peer = Answering(world)
    answers = peer.answers
    answers.confirming = True
    first, second, third = answers.place(), answers.place(2), answers.place()
    answers.give(second, unasked=True)
    answers.give(third, "no", unasked=False)
    assert peer.lines == []
    assert len(answers) == 3
    answers.give(first, unasked=True)
    assert peer.lines == ["OK", "OK", "OK", "ERROR no"]
    assert len(answers) == 0


async def test_who_did_not_ask_gets_one_error_a_second_while_it_reads(world: World) -> None:
    peer = Answering(world)
    for reads, passed_s in ((True, 0), (True, 0.5), (False, 1), (True, 0)):
        world.clock.advance(passed_s)
        peer.answers.give(peer.answers.place(), "no", unasked=reads)
        peer.answers.give(peer.answers.place(), unasked=reads)
    assert peer.lines == ["ERROR no", "ERROR no"]
    assert world.counters.left_out.line_errors == 2
