"""The judge of groups: a good history passes, and each rule finds the fault it is there for."""

from __future__ import annotations

import pytest

from tests.crash.group_checker import check_groups
from tests.crash.history import (
    Connected,
    Cursor,
    Delivery,
    History,
    Key,
    Published,
    Stored,
    Unsubscribed,
)

GROUP = "$share/g/a/#"
ONE, TWO, THREE, FOUR = (Key("p", sequence) for sequence in range(1, 5))


def connect(history: History, member: str, *, present: bool = True) -> Connected:
    number = sum(each.client == member for each in history.connects) + 1
    history.connects.append(Connected(member, number, history.epoch, present, at=history.now()))
    return history.connects[-1]


def deliver(
    history: History,
    key: Key,
    member: str,
    *,
    connection: int = 1,
    acknowledged: bool = True,
    qos: int = 1,
) -> Delivery:
    delivery = Delivery(key, "a/b", qos, 1, False, history.epoch, connection, at=history.now())
    delivery.acknowledged_in = history.epoch if acknowledged else None
    history.deliveries[member].append(delivery)
    return delivery


def end(history: History, connection: Connected, *, clean: bool = False) -> None:
    connection.ended_at, connection.clean = history.now(), clean


def kill(history: History, cursor: Cursor) -> None:
    """The broker dies: every connection ends, and the file has this cursor."""
    for each in history.connects:
        if each.ended_at is None:
            end(history, each)
    history.killed.add(history.epoch)
    history.cursors.append(cursor)
    history.epoch += 1


@pytest.fixture
def history() -> History:
    """m and n, who has QoS 2, share a/#. m acknowledged 1 and had 3, n had 2 (QoS 2), when the
    broker was killed: 1 was not yet committed as acknowledged, so m gets it and n gets 3. 4 comes
    after that. m is still there in the end."""
    history = History(groups={GROUP: {"m": 1, "n": 2}})
    for offset, (key, qos) in enumerate(((ONE, 1), (TWO, 2), (THREE, 1), (FOUR, 1)), 1):
        history.published[key] = Published("a/b", qos, at=history.now())
        history.log[offset] = Stored(offset, key, "a/b", qos)
    connect(history, "m", present=False)
    connect(history, "n", present=False)
    deliver(history, ONE, "m")
    deliver(history, TWO, "n", qos=2)
    deliver(history, THREE, "m", acknowledged=False)
    kill(history, Cursor(GROUP, 0, 0, 3, frozenset({1, 3})))
    connect(history, "m")
    connect(history, "n")
    deliver(history, ONE, "m", connection=2)
    deliver(history, THREE, "n", connection=2)
    deliver(history, FOUR, "m", connection=2)
    history.cursors.append(Cursor(GROUP, 1, 4, 4))
    return history


def fault(history: History) -> str:
    (only,) = check_groups(history, repeats_max=1)
    return only


def last(history: History, member: str) -> Connected:
    return [each for each in history.connects if each.client == member][-1]


def test_a_good_history_has_no_faults(history: History) -> None:
    assert check_groups(history, repeats_max=1) == []


def test_every_message_must_be_acknowledged_by_a_member(history: History) -> None:
    del history.deliveries["m"][-1]
    assert fault(history) == f"{GROUP}: p#4 is stored 1 times and was acknowledged 0 times"


def test_that_it_was_sent_is_not_enough(history: History) -> None:
    history.deliveries["m"][-1].acknowledged_in = None
    assert fault(history) == f"{GROUP}: p#4 is stored 1 times and was acknowledged 0 times"


def test_every_stored_copy_must_be_acknowledged(history: History) -> None:
    history.log[5] = Stored(5, FOUR, "a/b", 1)
    history.cursors[-1].sent_through = history.cursors[-1].offset = 5
    assert fault(history) == f"{GROUP}: p#4 is stored 2 times and was acknowledged 1 times"
    deliver(history, FOUR, "n", connection=2)
    assert check_groups(history, repeats_max=1) == []


def test_a_message_comes_with_the_lower_of_both_qos(history: History) -> None:
    history.deliveries["n"][-1].qos = 2
    assert fault(history) == "n: p#3 came as ('a/b', 2), not ('a/b', 1)"


def test_nothing_comes_that_does_not_match(history: History) -> None:
    history.published[Key("p", 5)] = Published("elsewhere", 1)
    deliver(history, Key("p", 5), "m", connection=2).topic = "elsewhere"
    assert "m: p#5 was delivered (epoch 1), is not owed to it" in check_groups(history, 1)


def test_a_held_packet_identifier_is_not_given_to_another_message(history: History) -> None:
    deliver(history, TWO, "n", connection=2, qos=2).held_for = TWO
    assert check_groups(history, repeats_max=1) == []
    history.deliveries["n"][-1].held_for = ONE
    assert fault(history) == ("n: p#2 came with Packet Identifier 1, still held for p#1 (epoch 1)")


def test_nobody_gets_what_another_has_acknowledged(history: History) -> None:
    deliver(history, FOUR, "n", connection=2)
    assert fault(history) == "n: p#4 came in epoch 1, and has it: m (connect 2)"


def test_nobody_gets_what_another_still_has(history: History) -> None:
    history.deliveries["m"][-1].acknowledged_in = None
    deliver(history, FOUR, "n", connection=2)
    assert fault(history) == "n: p#4 came in epoch 1, and has it: m (connect 2)"


def test_what_a_member_did_not_acknowledge_goes_to_another(history: History) -> None:
    history.deliveries["m"][-1].acknowledged_in = None
    end(history, last(history, "m"), clean=True)
    deliver(history, FOUR, "n", connection=2)
    assert check_groups(history, repeats_max=1) == []


def test_an_acknowledgement_before_a_disconnect_counts(history: History) -> None:
    end(history, last(history, "m"), clean=True)
    deliver(history, FOUR, "n", connection=2)
    assert fault(history) == "n: p#4 came in epoch 1, and has it: m (connect 2)"


def test_an_acknowledgement_counts_over_a_clean_stop(history: History) -> None:
    for each in history.connects[-2:]:
        end(history, each, clean=True)
    history.epoch += 1
    connect(history, "n")
    deliver(history, FOUR, "n", connection=3)
    assert fault(history) == "n: p#4 came in epoch 2, and has it: m (connect 2)"


def test_an_acknowledgement_may_be_lost_in_a_kill_after_a_disconnect(history: History) -> None:
    end(history, last(history, "m"), clean=True)
    kill(history, Cursor(GROUP, 1, 4, 4))
    connect(history, "n")
    deliver(history, FOUR, "n", connection=3)
    assert check_groups(history, repeats_max=1) == []


def test_a_kill_repeats_a_window_for_each_member(history: History) -> None:
    assert check_groups(history, repeats_max=0) == [
        f"{GROUP}: 1 messages came again that were acknowledged in epoch 0"
    ]


def test_what_nobody_acknowledges_is_repeated_once_however_often_it_comes(
    history: History,
) -> None:
    history.deliveries["m"][2].acknowledged_in = None
    for _ in range(3):
        end(history, last(history, "m"))
        number = connect(history, "m").connection
        delivery = deliver(history, ONE, "m", connection=number, acknowledged=False)
    delivery.acknowledged_in = history.epoch
    assert check_groups(history, repeats_max=1) == []


def test_what_a_client_reads_after_it_left_may_be_anothers_by_then(history: History) -> None:
    end(history, last(history, "n"))
    history.deliveries["m"][-1].at = history.now()
    deliver(history, FOUR, "n", connection=2, acknowledged=False)
    assert check_groups(history, repeats_max=1) == []


def test_a_connection_that_is_cut_off_repeats_no_more_than_its_window(history: History) -> None:
    end(history, last(history, "m"))
    deliver(history, FOUR, "n", connection=2)
    assert check_groups(history, repeats_max=1) == []
    deliver(history, ONE, "n", connection=2)
    assert fault(history) == (
        f"{GROUP}: 2 messages came again that m had acknowledged in its connection 2"
    )


def test_a_qos_2_message_stays_with_its_member(history: History) -> None:
    """[MQTT-4.8.2-4]"""
    history.groups[GROUP]["m"] = 2
    deliver(history, TWO, "m", connection=2, qos=2)
    assert fault(history) == "m: p#2 came in epoch 1, and has it: n (connect 1)"


def test_a_connection_gets_new_messages_in_offset_order(history: History) -> None:
    late, early = history.deliveries["m"][-1], deliver(history, Key("p", 5), "m", connection=2)
    history.published[early.key] = Published("a/b", 1, at=late.at - 1)
    history.log[4], history.log[5] = Stored(4, early.key, "a/b", 1), Stored(5, FOUR, "a/b", 1)
    history.cursors[-1].offset = history.cursors[-1].sent_through = 5
    assert fault(history) == "m: p#5 (offset 4) came after offset 5, in epoch 1"


@pytest.mark.parametrize("how", ["unsubscribed", "ended"])
def test_what_a_member_that_left_had_waiting_may_come_late(history: History, how: str) -> None:
    test_a_connection_gets_new_messages_in_offset_order(history)
    at = history.deliveries["m"][-1].at
    history.deliveries["m"][-1].at = at + 1
    if how == "unsubscribed":
        history.unsubscribed.append(Unsubscribed("n", at))
    else:
        last(history, "n").ended_at = at
    assert check_groups(history, repeats_max=1) == []


def test_a_cursor_does_not_fall(history: History) -> None:
    history.cursors.insert(0, Cursor(GROUP, 0, 1, 1))
    assert fault(history) == f"{GROUP}: the cursor fell from 1 to 0"


@pytest.mark.parametrize("cursor", [Cursor(GROUP, 1, 3, 3), Cursor(GROUP, 1, 3, 4, frozenset({4}))])
def test_nothing_is_owed_in_the_end(history: History, cursor: Cursor) -> None:
    history.cursors[-1] = cursor
    assert fault(history) == f"{GROUP}: p#4 (offset 4) is owed in the end"
