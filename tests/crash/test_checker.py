"""The judge itself: a good history passes, and each rule finds the fault it is there for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.crash.checker import check, check_growth, continued, matches, not_repeated
from tests.crash.history import (
    Connected,
    Cursor,
    Delivery,
    History,
    Key,
    Published,
    Stored,
    decode_payload,
    encode_payload,
)

ONE, TWO, THREE, FOUR = (Key("p", sequence) for sequence in range(1, 5))


def deliver(
    history: History, key: Key, qos: int, packet_id: int, epoch: int, *, acknowledged: bool = True
) -> Delivery:
    """Add a delivery to s, on its connection number epoch + 1."""
    delivery = Delivery(key, "a/b", qos, packet_id, False, epoch, epoch + 1)
    delivery.acknowledged_in = epoch if acknowledged else None
    history.deliveries["s"].append(delivery)
    return delivery


@pytest.fixture
def history() -> History:
    """Two epochs. Before the kill s acknowledged 1 (QoS 1) and 2 (QoS 2) of the publisher, 1 was
    not yet committed as acknowledged, and 3 (QoS 1) was stored without its PUBACK leaving: so 1
    comes again, and 3 is stored, and delivered, twice. 4 is QoS 0 and came."""
    history = History(epoch=2, subscriptions={"s": {"a/#": 2}})
    history.connects = [Connected("s", 1, 0, False), Connected("s", 2, 1, True)]
    for key, qos in ((ONE, 1), (TWO, 2), (THREE, 1), (FOUR, 0)):
        history.published[key] = Published("a/b", qos, acknowledged_in=1 if qos else None)
    history.published[THREE].sent = 2
    for offset, (key, qos) in enumerate(((ONE, 1), (TWO, 2), (THREE, 1), (THREE, 1), (FOUR, 0)), 1):
        history.log[offset] = Stored(offset, key, "a/b", qos)
    deliver(history, ONE, 1, 1, 0)
    deliver(history, TWO, 2, 2, 0)
    history.cursors.append(Cursor("s", 0, 0, 2, frozenset({1})))
    deliver(history, ONE, 1, 1, 1)
    deliver(history, THREE, 1, 3, 1)
    deliver(history, THREE, 1, 4, 1)
    deliver(history, FOUR, 0, 0, 1)
    history.cursors.append(Cursor("s", 1, 5, 5))
    return history


def fault(history: History) -> str:
    """The one fault of this history."""
    (only,) = check(history, repeats_max=1)
    return only


def test_a_good_history_has_no_faults(history: History) -> None:
    assert check(history, repeats_max=1) == []


def test_an_acknowledged_message_must_be_stored(history: History) -> None:
    history.published[Key("p", 5)] = Published("elsewhere", 1, acknowledged_in=0)
    assert fault(history) == "p#5 was acknowledged in epoch 0 and is not stored"


def test_a_message_without_acknowledgement_may_be_lost(history: History) -> None:
    history.published[Key("p", 5)] = Published("a/b", 1)
    assert check(history, repeats_max=1) == []


def test_a_qos_2_publish_is_stored_once(history: History) -> None:
    history.published[Key("p", 5)] = Published("elsewhere", 2, acknowledged_in=1, sent=2)
    for offset in (6, 7):
        history.log[offset] = Stored(offset, Key("p", 5), "elsewhere", 2)
    assert fault(history) == "p#5 (QoS 2) was sent 2 times and is stored 2 times"


def test_a_qos_1_publish_is_stored_at_most_as_often_as_it_was_sent(history: History) -> None:
    history.published[THREE].sent = 1
    assert fault(history) == "p#3 (QoS 1) was sent 1 times and is stored 2 times"


def test_a_publishers_messages_are_stored_in_order(history: History) -> None:
    history.published[Key("q", 1)] = history.published[Key("q", 2)] = Published("elsewhere", 1)
    history.log[6] = Stored(6, Key("q", 2), "elsewhere", 1)
    history.log[7] = Stored(7, Key("q", 1), "elsewhere", 1)
    assert fault(history) == "q#1 is stored after q#2"


def test_a_stored_message_must_reach_a_matching_subscriber(history: History) -> None:
    history.published[Key("p", 5)] = Published("a/c", 2)
    history.log[6] = Stored(6, Key("p", 5), "a/c", 2)
    assert fault(history) == "s: p#5 (offset 6, QoS 2) never came"


def test_qos_0_may_be_lost(history: History) -> None:
    del history.deliveries["s"][-1]
    assert check(history, repeats_max=1) == []


def test_nothing_is_delivered_that_is_not_in_the_log(history: History) -> None:
    history.published[Key("p", 5)] = Published("a/b", 1)
    deliver(history, Key("p", 5), 1, 5, 1)
    assert fault(history) == "s: p#5 was delivered (epoch 1), is not in the log"


def test_nothing_is_delivered_that_was_not_subscribed(history: History) -> None:
    history.published[Key("p", 5)] = Published("elsewhere", 0)
    history.log[6] = Stored(6, Key("p", 5), "elsewhere", 0)
    deliver(history, Key("p", 5), 0, 0, 1).topic = "elsewhere"
    assert fault(history) == "s: p#5 was delivered (epoch 1), which it did not subscribe to"


def test_first_deliveries_are_in_offset_order(history: History) -> None:
    del history.deliveries["s"][0]
    assert fault(history) == "s: p#1 (offset 1) came after offset 2, in epoch 1"


def test_qos_0_may_go_ahead_of_others_and_be_lost_from_the_log(history: History) -> None:
    """P9"""
    history.published[Key("p", 5)] = Published("a/b", 0)
    deliver(history, Key("p", 5), 0, 0, 1)
    ahead = history.deliveries["s"].pop(5)
    assert ahead.key == FOUR
    history.deliveries["s"].insert(2, ahead)
    assert check(history, repeats_max=1) == []


def test_qos_0_comes_in_the_order_of_its_topic(history: History) -> None:
    history.published[Key("p", 5)] = Published("a/b", 0)
    history.log[6] = Stored(6, Key("p", 5), "a/b", 0)
    deliver(history, Key("p", 5), 0, 0, 1)
    deliveries = history.deliveries["s"]
    assert check(history, repeats_max=1) == []
    deliveries[-1], deliveries[5] = deliveries[5], deliveries[-1]
    assert "p#4 (offset 5) came after offset 6, in epoch 1" in fault(history)


def test_a_connection_gets_messages_in_offset_order(history: History) -> None:
    deliver(history, TWO, 2, 2, 1).held_for = TWO
    assert check(history, repeats_max=2) == ["s: p#2 (offset 2) came after offset 4, in epoch 1"]


def test_qos_0_may_come_late_in_a_later_connection(history: History) -> None:
    history.published[ONE] = Published("a/b", 0)
    history.log[1].qos = 0
    del history.deliveries["s"][0]  # Lost with the first connection.
    late = history.deliveries["s"][1]
    late.qos, late.acknowledged_in = 0, None
    assert check(history, repeats_max=0) == []


def test_a_qos_2_delivery_is_processed_once(history: History) -> None:
    deliver(history, TWO, 2, 2, 1)
    history.deliveries["s"].insert(3, history.deliveries["s"].pop())
    assert check(history, repeats_max=2) == [
        "s: p#2 (offset 2) was processed twice, in epoch 0 as 2 and in epoch 1 as 2"
    ]


def test_a_qos_2_delivery_that_the_client_still_holds_may_come_again(history: History) -> None:
    deliver(history, TWO, 2, 2, 1).held_for = TWO
    history.deliveries["s"].insert(3, history.deliveries["s"].pop())
    assert check(history, repeats_max=2) == []


def test_a_held_packet_identifier_is_not_given_to_another_message(history: History) -> None:
    history.published[Key("p", 5)] = Published("a/b", 2)
    history.log[6] = Stored(6, Key("p", 5), "a/b", 2)
    deliver(history, Key("p", 5), 2, 2, 1).held_for = TWO
    assert check(history, repeats_max=1) == [
        "s: p#5 came with Packet Identifier 2, still held for p#2 (epoch 1)",
        "s: p#5 (offset 6, QoS 2) never came",
    ]


def test_a_message_comes_with_the_lower_of_both_qos(history: History) -> None:
    history.deliveries["s"][-1].qos = 1
    assert fault(history) == "s: p#4 came as ('a/b', 1), not ('a/b', 0)"


def test_a_message_comes_with_its_topic(history: History) -> None:
    history.deliveries["s"][-1].topic = "a/c"
    assert fault(history) == "s: p#4 came as ('a/c', 0), not ('a/b', 0)"


def test_a_message_is_stored_as_it_was_published(history: History) -> None:
    history.log[5].topic = "a/c"
    assert fault(history).startswith("p#4 to a/b is stored as Stored(")


def test_a_connection_gets_a_message_once_for_each_stored_copy(history: History) -> None:
    deliver(history, THREE, 1, 5, 1)
    assert check(history, repeats_max=2) == ["s: p#3 (offset 3) came after offset 4, in epoch 1"]


def test_what_was_acknowledged_comes_again_within_a_bound_only(history: History) -> None:
    assert check(history, repeats_max=0) == ["s: 1 acknowledged messages came again at connect 2"]


def test_a_stored_copy_is_not_repeated_by_the_other(history: History) -> None:
    """THREE is stored twice. Its first copy comes in three connections, its second in the last."""
    del history.deliveries["s"][4]
    for epoch in (1, 2):
        history.cursors.append(Cursor("s", epoch, 2, 2))
    deliver(history, THREE, 1, 3, 2)
    deliver(history, THREE, 1, 3, 3)
    deliver(history, THREE, 1, 4, 3)
    assert list(not_repeated(history, repeats_max=1)) == []
    assert len(list(not_repeated(history, repeats_max=0))) == 3


def test_a_copy_at_or_below_the_cursor_is_not_the_one_that_comes(history: History) -> None:
    del history.deliveries["s"][4]
    history.cursors[1] = Cursor("s", 1, 3, 3)
    deliver(history, THREE, 1, 4, 2)
    assert [f for f in not_repeated(history, repeats_max=0) if "connect 3" in f] == []


def test_what_was_not_acknowledged_may_come_again(history: History) -> None:
    history.deliveries["s"][0].acknowledged_in = None
    assert check(history, repeats_max=0) == []


@pytest.mark.parametrize(("packet_id", "dup"), [(1, False), (9, True)])
def test_after_a_clean_stop_an_exchange_is_continued(
    history: History, packet_id: int, dup: bool
) -> None:
    before, after = history.deliveries["s"][0], history.deliveries["s"][2]
    before.acknowledged_in, after.dup = None, True
    assert list(continued(history)) == []
    after.packet_id, after.dup = packet_id, dup
    first, *_ = continued(history)
    assert first == (
        f"s: p#1 was in flight as 1; instead p#1 came with {packet_id}, DUP = {dup} (epoch 1)"
    )


def test_each_stored_copy_in_flight_is_continued_as_itself(history: History) -> None:
    """A publisher that the stop kept from its PUBACK sent THREE again. It is stored at two offsets
    and both are in flight, under two Packet Identifiers, at the next stop."""
    for delivery in history.deliveries["s"][3:5]:
        delivery.acknowledged_in = None
    again = [deliver(history, THREE, 1, packet_id, 2) for packet_id in (3, 4)]
    for delivery in again:
        delivery.dup = True
    assert list(continued(history)) == []
    again[0].packet_id, again[1].packet_id = 4, 3
    assert list(continued(history)) == [
        "s: p#3 was in flight as 3; instead p#3 came with 4, DUP = True (epoch 2)",
        "s: p#3 was in flight as 4; instead p#3 came with 3, DUP = True (epoch 2)",
    ]


def test_an_acknowledged_copy_does_not_excuse_the_other(history: History) -> None:
    history.deliveries["s"][3].acknowledged_in = None
    assert list(continued(history)) == ["s: p#3 was in flight as 3, never to come again"]
    deliver(history, THREE, 1, 4, 2).dup = True
    first, *_ = continued(history)
    assert first == ("s: p#3 was in flight as 3; instead p#3 came with 4, DUP = True (epoch 2)")


def test_what_was_in_flight_comes_before_anything_new(history: History) -> None:
    history.deliveries["s"][4].acknowledged_in = None
    deliver(history, Key("p", 5), 1, 5, 2)
    deliver(history, THREE, 1, 4, 2).dup = True
    assert list(continued(history)) == [
        "s: p#3 was in flight as 4; instead p#5 came with 5, DUP = False (epoch 2)"
    ]


@pytest.mark.parametrize("connection", [1, 2])
def test_a_session_is_present_at_every_connect_but_the_first(
    history: History, connection: int
) -> None:
    connect = history.connects[connection - 1]
    connect.session_present = not connect.session_present
    assert "session present" in fault(history)


def test_a_cursor_does_not_pass_what_was_not_acknowledged(history: History) -> None:
    history.deliveries["s"][0].acknowledged_in = 1  # Its PUBACK was written after the kill.
    history.cursors[0] = Cursor("s", 0, 1, 2)
    assert fault(history) == (
        "s: after epoch 0 the cursor (1, sent through 2) claims p#1 at offset 1, "
        "acknowledged by then 0 times of 1"
    )


def test_a_cursor_does_not_omit_from_its_list_what_was_not_acknowledged(history: History) -> None:
    history.deliveries["s"][0].acknowledged_in = None
    history.cursors[0].inflight = frozenset()
    assert "claims p#1 at offset 1" in fault(history)


def test_every_stored_copy_must_be_acknowledged_for_the_cursor_to_pass(history: History) -> None:
    history.deliveries["s"][4].acknowledged_in = None
    faults = check(history, repeats_max=1)
    assert len(faults) == 2
    assert all("acknowledged by then 1 times of 2" in each for each in faults)


def test_a_cursor_does_not_fall(history: History) -> None:
    history.cursors.append(Cursor("s", 2, 4, 4))
    assert fault(history) == "s: the cursor fell from 5 to 4"


def test_what_the_clients_noticed_is_a_fault(history: History) -> None:
    history.unexpected.append("p: packet of type 4 for identifier 9")
    history.unfinished.append("s: p#2")
    assert len(check(history, repeats_max=1)) == 2


def test_a_log_that_grows_at_its_end_is_good(history: History) -> None:
    rows = list(history.log.values())
    assert check_growth({}, rows, 0) == []
    known = {row.offset: row for row in rows[:3]}
    assert check_growth(known, rows, 1) == []


def test_an_offset_keeps_its_message(history: History) -> None:
    rows = [replace(row, key=TWO) if row.offset == 3 else row for row in history.log.values()]
    assert check_growth(history.log, rows, 1) == ["offset 3 was p#3 and is p#2 in epoch 1"]


def test_a_stored_message_does_not_vanish(history: History) -> None:
    rows = [row for row in history.log.values() if row.offset != 5]
    assert check_growth(history.log, rows, 1) == ["offset 5 (p#4) vanished in epoch 1"]


def test_new_offsets_are_above_all_known_ones(history: History) -> None:
    known = {offset: row for offset, row in history.log.items() if offset != 3}
    assert check_growth(known, history.log.values(), 1) == [
        "p#3 appeared at offset 3 in epoch 1, below 5"
    ]


def test_an_offset_is_there_once(history: History) -> None:
    rows = [*history.log.values(), history.log[1]]
    assert check_growth({}, rows, 0) == ["offset 1 is in the log twice"]


def test_a_payload_names_its_message() -> None:
    payload = encode_payload(ONE, 2, 100)
    assert len(payload) == 100
    assert decode_payload(payload) == (ONE, 2)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/#", "a/b/c", True),
        ("#", "a", True),
        ("a/+", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/+/c", "a/b/c", True),
        ("a/b", "a/c", False),
        ("a/b/#", "a", False),
    ],
)
def test_matching(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected
