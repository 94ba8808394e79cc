from __future__ import annotations

from broker.session.received import ReceivedQos2


def test_a_message_is_new_once_until_it_is_released() -> None:
    """[MQTT-4.3.3-10]"""
    received = ReceivedQos2()
    assert received.receive(7)
    assert not received.receive(7)
    assert received.release([7, 8]) == [7]
    assert received.receive(7)


def test_received_and_released_identifiers_are_to_be_written() -> None:
    """Or a message with a released identifier would be taken for one that was sent again. (P1)"""
    received = ReceivedQos2()
    assert not received.changed
    received.receive(772)
    received.receive(258)
    assert (received.changed, received.take_packed()) == (True, bytes.fromhex("0102 0304"))
    received.receive(258)
    assert not received.changed, "it was known"
    received.release([258, 772])
    assert (received.changed, received.take_packed(), received.changed) == (True, b"", False)


def test_what_was_not_stored_is_to_be_written_again() -> None:
    received = ReceivedQos2()
    received.receive(1)
    packed = received.take_packed()
    received.not_committed()
    assert (received.changed, received.take_packed()) == (True, packed)


def test_identifiers_come_back_from_the_log() -> None:
    received, again = ReceivedQos2(), ReceivedQos2()
    for packet_id in (1, 300, 65_535):
        received.receive(packet_id)
    again.restore(received.take_packed())
    assert not again.changed
    assert [again.receive(packet_id) for packet_id in (1, 2, 300, 65_535)] == [
        False,
        True,
        False,
        False,
    ]
