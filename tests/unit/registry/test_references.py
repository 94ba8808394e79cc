from __future__ import annotations

import pytest

from broker.config import Config
from broker.errors import QuotaExceeded, UseAnotherServer
from broker.registry.references import References
from broker.store.shared.entries import Told


def beside(*others: Told, **settings: int) -> References:
    references = References(Config(advertise="here:1", **settings))  # type: ignore[arg-type]
    references.others = lambda: others
    return references


def test_clients_are_referred_to_each_that_says_where_it_is_in_turn() -> None:
    references = beside(Told("a:1"), Told(""), Told("b:2", has_room=False))
    assert {references.next() for _ in range(2)} == {"a:1", "b:2"}
    assert references.next(with_room=True) == references.next(with_room=True) == "a:1"


def test_who_is_alone_refers_nobody() -> None:
    references = beside(connections_max=10)
    references.connections = lambda: 10
    references.refer_if_crowded()
    assert references.next() == ""
    assert type(references.full("no room")) is QuotaExceeded


@pytest.mark.parametrize(
    ("most", "connections", "refers"),
    [(1, 1, True), (100, 95, False), (100, 96, True), (20_000, 19_900, False)],
)
def test_the_last_connections_are_for_those_that_are_referred(
    most: int, connections: int, refers: bool
) -> None:
    references = beside(Told("a:1"), connections_max=most)
    references.connections = lambda: connections
    assert references.told().has_room is not refers
    if refers:
        with pytest.raises(UseAnotherServer) as refused:
            references.refer_if_crowded()
        assert refused.value.reference == "a:1"
    else:
        references.refer_if_crowded()


def test_others_that_are_full_get_nobody() -> None:
    references = beside(Told("a:1", has_room=False), connections_max=1)
    references.connections = lambda: 1
    references.refer_if_crowded()


def test_where_there_is_no_room_for_a_session_another_broker_may_have_it() -> None:
    references = beside(Told("a:1"), sessions_max=5)
    references.sessions = lambda: 5
    error = references.full("5 sessions")
    assert isinstance(error, UseAnotherServer)
    assert (error.reason_code, error.reference) == (0x9C, "a:1")
    assert not references.told().has_room


def test_nobody_is_referred_to_a_broker_that_ends() -> None:
    references = beside()
    assert references.told() == Told("here:1", has_room=True)
    references.ending = True
    assert references.told() == Told("", has_room=False)
