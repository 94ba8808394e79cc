"""Leases of one member, in the order in which they were sent."""

from __future__ import annotations

from broker.message import Lease
from broker.session.leases import Leases


def two() -> Leases:
    leases = Leases()
    leases.add([(7, Lease("a", 1)), (8, Lease("b", 2))], {7, 8})
    return leases


def test_what_is_not_in_flight_at_qos_1_has_ended() -> None:
    """[MQTT-4.8.2-4, MQTT-4.8.2-5]"""
    leases = Leases()
    leases.add([(7, Lease("a", 1)), (8, Lease("a", 2))], {8})
    assert (leases.take_settled(), [*leases.held]) == ([Lease("a", 1)], [8])


def test_what_is_refused_has_not_ended_well() -> None:
    leases = two()
    assert leases.refuse([8, 9]) == [Lease("b", 2)]
    assert (leases.take_settled(), leases.has("b"), leases.has("a")) == ([], False, True)


def test_what_is_taken_back_stays_and_is_passed_over() -> None:
    leases = two()
    assert leases.oldest() == Lease("a", 1)
    leases.take_back([7])
    assert leases.oldest() == Lease("b", 2)
    assert [packet_id for packet_id, _ in leases.current()] == [8]
    leases.end([7])
    assert leases.take_settled() == [Lease("a", 0, attempt=0)]


def test_what_was_sent_at_qos_2_may_be_refused_until_it_is_taken() -> None:
    """[MQTT-4.8.2-6]"""
    leases = Leases()
    leases.add([(n, Lease("a", n)) for n in (1, 2, 3)] + [(0, Lease("a", 4))], ())
    leases.taken_qos2([2])
    assert leases.refuse_qos2([1, 2, 0]) == [Lease("a", 1)]
    assert leases.refuse_qos2([1, 3]) == [Lease("a", 3)]
    assert leases.of_qos2 == {}
    assert len(leases.take_settled()) == 4
