"""Nothing is acknowledged before it is written, and a lost connection loses nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes

from cli.messages.execute import Command
from cli.messages.subscribe import Options, Replay, subscribe
from cli.net.address import Address
from cli.net.client import UserProperties, packet_properties
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit, OutputClosed
from tests.support.scripted_client import ScriptedClient, message

OPTIONS = Options(
    address=Address(),
    filters=("a",),
    client_id="me",
    durable=True,
    resume=False,
    qos=1,
    format=lambda message, _: b"%d\n" % message.mid,
    metadata=False,
    count=3,
)
MONTH_S = 30 * 86_400


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    client = ScriptedClient()
    monkeypatch.setattr("cli.messages.subscribe.Client", lambda *_: client)
    monkeypatch.setattr("cli.net.reconnect.FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("cli.terminal.output.reader_gone", list)
    monkeypatch.setattr(
        "cli.terminal.output.data", lambda block: client.did.append(("write", block))
    )
    return client


def after_the_start(client: ScriptedClient) -> list[tuple[object, ...]]:
    """What was done between SUBSCRIBE and the end."""
    assert [did[0] for did in client.did[:2]] == ["open", "subscribe"]
    assert client.did[-1] == ("close", False)
    return client.did[2:-1]


def test_what_arrived_together_is_written_and_then_acknowledged(client: ScriptedClient) -> None:
    client.turns.extend([[message("a", 1), message("a", 2)], [], [message("a", 3)]])
    assert subscribe(OPTIONS) is Exit.OK
    assert after_the_start(client) == [
        ("write", b"1\n2\n"),
        ("acknowledge", 1, 2),
        ("write", b"3\n"),
        ("acknowledge", 3),
    ]


def test_what_could_not_be_written_is_not_acknowledged(
    client: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_block: bytes) -> None:
        raise OutputClosed

    monkeypatch.setattr("cli.terminal.output.data", gone)
    client.turns.append([message("a", 1)])
    with pytest.raises(OutputClosed):
        subscribe(OPTIONS)
    assert after_the_start(client) == []


def test_who_misses_messages_is_told(
    client: ScriptedClient, capsys: pytest.CaptureFixture[str]
) -> None:
    behind_a_gap = message("a", 1)
    gaps = [("gap", "5-9"), ("gap", "12")]
    behind_a_gap.properties = packet_properties(PacketTypes.PUBLISH, gaps)
    client.turns.append([behind_a_gap, message("a", 2)])
    subscribe(replace(OPTIONS, count=2))
    said = capsys.readouterr().err
    assert said.count("missing: offsets 5-9, 12, removed by retention") == 1


def test_no_more_than_wanted_is_written_or_acknowledged(client: ScriptedClient) -> None:
    client.turns.append([message("a", n) for n in range(1, 6)])
    assert subscribe(OPTIONS) is Exit.OK
    assert client.did[0] == ("open", False, MONTH_S, 3)
    assert after_the_start(client) == [("write", b"1\n2\n3\n"), ("acknowledge", 1, 2, 3)]


def test_retained_messages_left_out_are_acknowledged_and_not_counted(
    client: ScriptedClient,
) -> None:
    retained = message("a", 1)
    retained.retain = True
    client.turns.append([retained, message("a", 2)])
    assert subscribe(replace(OPTIONS, ignore_retained=True, count=1)) is Exit.OK
    assert after_the_start(client) == [("write", b"2\n"), ("acknowledge", 1, 2)]


def test_what_is_filtered_out_is_acknowledged_and_not_counted(client: ScriptedClient) -> None:
    client.turns.append([message("a/b", 1), message("a/c", 2), message("a", 3)])
    subscribe(replace(OPTIONS, filtered_out=("a/+",), count=1))
    assert after_the_start(client) == [("write", b"3\n"), ("acknowledge", 1, 2, 3)]


def test_it_ends_when_it_is_subscribed(client: ScriptedClient) -> None:
    subscribe(replace(OPTIONS, count=0, session_expiry_s=60))
    assert client.did[0][:3] == ("open", False, 60)
    assert after_the_start(client) == []


def test_what_to_unsubscribe_is_said_and_is_not_what_stays(
    client: ScriptedClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.sessions.append(True)
    client.reports.append((("subscription", "a"), ("subscription", "old"), ("subscriptions", "2")))
    unsubscribing = replace(OPTIONS, filters=("a",), durable=True, unsubscribe=("old", "none"))
    client._subscribed.add("old")
    subscribe(replace(unsubscribing, count=0))
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == ["no longer subscribed to old", "was not subscribed to none"]


def test_a_replay_ends_when_each_of_its_filters_has(client: ScriptedClient) -> None:
    def ended(topic_filter: bytes) -> MQTTMessage:
        return message("$replay/ended", 0, qos=0, payload=topic_filter)

    client.turns.extend([[message("a", 1), ended(b"b")], [message("a", 2), ended(b"a")]])
    options = replace(OPTIONS, filters=("a", "b"), replay=Replay("1", "9"), count=None)
    assert subscribe(options) is Exit.OK
    assert client.did[1] == ("subscribe", ("a", "b"), 1, {"from": "1", "until": "9"})
    assert [did for did in client.did if did[0] == "acknowledge"] == [
        ("acknowledge", 1),
        ("acknowledge", 2),
    ]


def test_a_command_gets_the_message_and_its_success_acknowledges_it(
    client: ScriptedClient, capfd: pytest.CaptureFixture[str]
) -> None:
    client.turns.append([message("a", 1, payload=b"in", offset=7), message("a", 2)])
    command = 'echo "$PUBSUB_TOPIC $PUBSUB_OFFSET $(cat)"'
    assert subscribe(replace(OPTIONS, command=Command(command), count=2)) is Exit.OK
    assert capfd.readouterr().out == "a 7 in\na  x\n"
    assert after_the_start(client) == [("acknowledge", 1), ("acknowledge", 2)]
    assert client.did[0] == ("open", False, MONTH_S, 1)


def test_a_message_whose_command_failed_is_tried_again_and_only_qos_0_goes_before_it(
    client: ScriptedClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cli.messages.execute.RETRY_FIRST_S", 0.05)
    client.turns.append(
        [message("bad", 1, offset=7), message("zero", 0, qos=0), message("good", 2)]
    )
    tries = tmp_path / "tries"
    command = (
        f"echo $PUBSUB_TOPIC >> {tries}; [ $PUBSUB_TOPIC != bad ] || [ $(grep -c bad {tries}) = 3 ]"
    )
    assert subscribe(replace(OPTIONS, command=Command(command))) is Exit.OK
    assert tries.read_text().split() == ["bad", "zero", "bad", "bad", "good"]
    assert [did for did in after_the_start(client) if did != ("acknowledge", 0)] == [
        ("acknowledge", 1),
        ("acknowledge", 2),
    ]
    told = "pubsub: --exec ended with exit code 1 on a message to bad, offset 7; "
    told += "it is not acknowledged, and tried again in {} s"
    assert capfd.readouterr().err.splitlines()[1:] == [told.format(0.05), told.format(0.1)]


def test_what_failed_is_left_to_the_broker_when_the_connection_is_lost(
    client: ScriptedClient,
) -> None:
    client.sessions.extend([False, True])
    client.turns.extend([[message("a", 1)], [ConnectionLost("closed")], [message("b", 1)]])
    options = replace(OPTIONS, command=Command('test "$PUBSUB_TOPIC" = b'), count=1)
    assert subscribe(options) is Exit.OK
    assert [did for did in after_the_start(client) if did[0] == "acknowledge"] == [
        ("acknowledge", 1)
    ]


def test_ctrl_c_is_no_error(client: ScriptedClient) -> None:
    client.turns.append([KeyboardInterrupt])
    assert subscribe(OPTIONS) is Exit.OK


def test_nothing_to_resume_says_how_to_begin_and_leaves_no_session(
    client: ScriptedClient,
) -> None:
    with pytest.raises(CommandFailed, match="pubsub sub TOPIC --id me") as failed:
        subscribe(replace(OPTIONS, resume=True))
    assert failed.value.code is Exit.NOTHING_THERE
    assert client.did[:2] == [("open", False, MONTH_S, 3), ("close", True)]


# The same command again


THERE = [("subscription", "a"), ("subscription", "b"), ("subscriptions", "2")]


def again(
    client: ScriptedClient, report: UserProperties, **changed: Any
) -> list[tuple[object, ...]]:
    """What a later start does after its CONNECT, until it waits for messages."""
    client.sessions.append(True)
    client.reports.append(report)
    assert subscribe(replace(OPTIONS, timeout_s=0, **changed)) is Exit.TIMEOUT
    assert client.did[0] == ("open", False, MONTH_S, 3)
    return client.did[1:-1]


def test_the_same_command_again_goes_on_and_says_what_it_no_longer_names(
    client: ScriptedClient, capfd: pytest.CaptureFixture[str]
) -> None:
    did = again(client, THERE, filters=("a", "new"))
    assert did == [("subscribe", ("a", "new"), 1, {})]
    assert capfd.readouterr().err.splitlines() == [
        "resuming me where it stopped: a, new",
        "still subscribed to b; --only drops what is not named",
    ]


def test_only_drops_what_the_command_no_longer_names(
    client: ScriptedClient, capfd: pytest.CaptureFixture[str]
) -> None:
    assert again(client, THERE, filters=("$replay/-3/a",), only=True) == [
        ("subscribe", ("$replay/-3/a",), 1, {}),
        ("unsubscribe", "b"),
    ]
    assert capfd.readouterr().err.splitlines()[1] == "no longer subscribed to b"


def test_what_a_broker_does_not_tell_cannot_be_dropped(
    client: ScriptedClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """Any other broker; and ours, where a session has more filters than one CONNACK names."""
    for report in ([], [("subscription", "b"), ("subscriptions", "2")]):
        client.did.clear()
        with pytest.raises(CommandFailed, match="--fresh"):
            again(client, report, only=True)
        assert not any(did[0] == "unsubscribe" for did in client.did)
        client.did.clear()
        assert again(client, report) == [("subscribe", ("a",), 1, {})]


@pytest.mark.parametrize("report", [THERE, []])
def test_a_start_that_has_no_effect_is_said(
    report: UserProperties, client: ScriptedClient, capfd: pytest.CaptureFixture[str]
) -> None:
    again(client, report, filters=("a",), replay=Replay("earliest", "9"))
    assert "--from and --until without effect on a: " in capfd.readouterr().err


def test_a_start_has_its_effect_on_a_filter_that_is_new(
    client: ScriptedClient, capfd: pytest.CaptureFixture[str]
) -> None:
    assert again(client, THERE, filters=("a", "new"), replay=Replay("1")) == [
        ("subscribe", ("a", "new"), 1, {"from": "1"})
    ]
    assert "without effect on a: " in capfd.readouterr().err
    client.did.clear()
    again(client, THERE, filters=("new",), replay=Replay("1"))
    assert "without effect" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ([("unread", "1")], "discarded, with 1 message not delivered yet"),
        ([("unread-at-least", "9")], "discarded, with 9 messages or more not delivered yet"),
        ([], "discarded"),
    ],
)
def test_fresh_discards_and_says_how_many_messages_went(
    report: UserProperties,
    said: str,
    client: ScriptedClient,
    capfd: pytest.CaptureFixture[str],
) -> None:
    client.sessions.append(True)
    client.reports.append(report)
    assert subscribe(replace(OPTIONS, fresh=True, timeout_s=0)) is Exit.TIMEOUT
    assert client.did[:4] == [
        ("open", False, 0, 1),
        ("close", False),
        ("open", True, MONTH_S, 3),
        ("subscribe", ("a",), 1, {}),
    ]
    assert capfd.readouterr().err.splitlines() == [
        f"the session of me is {said}",
        "subscribed to a (QoS 1) as me",
    ]


@pytest.mark.parametrize(
    ("topic_filter", "says"),
    [
        ("a/#/b", "Topic Filter has a #"),
        ("$share/a", "$share"),
        ("$share//a", "$share"),
        ("$replay/tomorrow/a", "replay spec cannot be understood"),
        ("$replay/5", "replay is incomplete"),
    ],
)
def test_a_filter_that_a_broker_would_refuse_is_explained(
    client: ScriptedClient, topic_filter: str, says: str
) -> None:
    with pytest.raises(CommandFailed) as failed:
        subscribe(replace(OPTIONS, filters=("a", topic_filter)))
    assert f"{topic_filter!r}: " in str(failed.value)
    assert says in str(failed.value)
    assert failed.value.code is Exit.USAGE
    assert client.did == []


@pytest.mark.parametrize(
    ("reason_code", "code"), [(0x87, Exit.NOT_AUTHORIZED), (0x8F, Exit.FAILED)]
)
def test_a_refused_filter_is_named(client: ScriptedClient, reason_code: int, code: Exit) -> None:
    client.reasons["b"] = reason_code
    with pytest.raises(CommandFailed, match="refuses to subscribe to b: ") as failed:
        subscribe(replace(OPTIONS, filters=("a", "b")))
    assert failed.value.code is code
    right = "; ann needs the right to subscribe b"
    assert str(failed.value).endswith(right) is (code is Exit.NOT_AUTHORIZED)


def test_a_durable_subscriber_resumes_and_leaves_what_is_sent_again(
    client: ScriptedClient,
) -> None:
    lost = ConnectionLost("closed")
    client.sessions.extend([False, True])
    client.turns.extend([[message("a", 1), message("a", 0, qos=0), lost], [message("a", 1)]])
    assert subscribe(replace(OPTIONS, count=2)) is Exit.OK
    assert after_the_start(client) == [
        ("write", b"0\n"),
        ("acknowledge", 0),
        ("open", False, MONTH_S, 2),
        ("write", b"1\n"),
        ("acknowledge", 1),
    ]


def test_others_subscribe_again_where_the_replay_stopped(client: ScriptedClient) -> None:
    lost = ConnectionLost("closed")
    client.turns.extend([[message("a", 1, offset=7)], [lost], [message("a", 2)]])
    options = replace(OPTIONS, durable=False, replay=Replay("5"), count=2)
    assert subscribe(options) is Exit.OK
    assert [did for did in client.did if did[0] in ("open", "subscribe")] == [
        ("open", True, 0, 2),
        ("subscribe", ("a",), 1, {"from": "5"}),
        ("open", True, 0, 2),
        ("subscribe", ("a",), 1, {"from": "8"}),
    ]


@pytest.mark.parametrize(
    ("reason_code", "code", "says"),
    [(0x8E, Exit.FAILED, "took the session over"), (0x87, Exit.NOT_AUTHORIZED, "why")],
)
def test_what_does_not_get_better_is_not_tried_again(
    client: ScriptedClient, reason_code: int, code: Exit, says: str
) -> None:
    client.turns.append([ConnectionLost("why", reason_code)])
    with pytest.raises(CommandFailed, match=says) as failed:
        subscribe(OPTIONS)
    assert failed.value.code is code
    assert after_the_start(client) == []


def test_a_timeout_is_told_from_success(client: ScriptedClient) -> None:
    client.turns.append([message("a", 1)])
    assert subscribe(replace(OPTIONS, timeout_s=0)) is Exit.TIMEOUT
    assert after_the_start(client) == [("write", b"1\n"), ("acknowledge", 1)]


def published(topic: str, number: int, second: int) -> MQTTMessage:
    made = message(topic, number)
    pair = ("published-at", f"2025-03-14T10:30:{second:02}.000000Z")
    made.properties = packet_properties(PacketTypes.PUBLISH, [pair])
    return made


def test_with_a_speed_each_waits_until_it_is_due(client: ScriptedClient) -> None:
    """Then it is written and acknowledged, and not before."""
    together = [published("a", 1, 0), published("a", 2, 0), published("a", 3, 10)]
    client.turns.extend([together])
    began = time.monotonic()
    options = replace(OPTIONS, durable=False, replay=Replay("1", speed=50.0))
    assert subscribe(options) is Exit.OK
    assert time.monotonic() - began >= 0.2
    assert after_the_start(client) == [
        ("write", b"1\n2\n"),
        ("acknowledge", 1, 2),
        ("write", b"3\n"),
        ("acknowledge", 3),
    ]
