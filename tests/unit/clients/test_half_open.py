"""When it is looked whether what was written has arrived at a peer that has no more to say."""

from __future__ import annotations

import pytest

from broker.clients.half_open import SELDOM_S, SOON_S, HalfOpen
from broker.message import Monotonic
from tests.support.clients import Transport

NOW = Monotonic(100.0)
SOON, SELDOM = Monotonic(NOW + SOON_S), Monotonic(NOW + SOON_S + SELDOM_S)


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def half_open(transport: Transport) -> HalfOpen:
    half_open = HalfOpen(transport)
    assert half_open.deadline() is None
    assert half_open.begin(NOW)
    return half_open


def test_it_is_looked_at_soon_while_something_is_on_its_way_and_seldom_while_nothing_is(
    half_open: HalfOpen, transport: Transport
) -> None:
    assert half_open.deadline() == SOON
    assert not half_open.look(NOW)
    transport.arrived = False
    assert not half_open.look(SOON)
    assert half_open.deadline() == SOON + SOON_S
    transport.arrived = True
    assert half_open.look(SELDOM)
    assert half_open.deadline() == SELDOM + SELDOM_S
    moved = transport.deadlines_moved
    half_open.written(SELDOM)
    half_open.written(SELDOM)
    assert half_open.deadline() == SELDOM + SOON_S
    assert transport.deadlines_moved == moved + 1


def test_nothing_has_arrived_where_the_connection_is_gone(
    half_open: HalfOpen, transport: Transport
) -> None:
    transport.gone = True
    assert not half_open.look(SOON)
    assert transport.aborted


def test_it_does_not_begin_where_the_system_does_not_tell(transport: Transport) -> None:
    transport.tells_arrival = False
    half_open = HalfOpen(transport)
    assert not half_open.begin(NOW)
    assert half_open.deadline() is None
    half_open.written(NOW)
    assert not half_open.look(SELDOM)
