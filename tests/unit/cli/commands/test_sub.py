"""`pubsub sub`: from options to what is subscribed to and how it is written."""

from __future__ import annotations

import shlex

import pytest
import typer
from paho.mqtt.client import MQTTMessage

from cli.main import app
from cli.messages.execute import Command
from cli.messages.subscribe import Options, Replay
from cli.net.address import Address
from cli.terminal.failure import Exit


@pytest.fixture(autouse=True)
def subscribed(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    subscribed: list[Options] = []

    def subscribe(options: Options) -> Exit:
        subscribed.append(options)
        return Exit.TIMEOUT

    monkeypatch.setattr("cli.messages.subscribe.subscribe", subscribe)
    return subscribed


def sub(arguments: str) -> object:
    return app(["sub", *shlex.split(arguments)], standalone_mode=False)


def written(options: Options) -> bytes:
    message = MQTTMessage(topic=b"a")
    message.payload = b"b"
    return options.format(message, 0)


def test_its_exit_code_is_that_of_the_subscription() -> None:
    assert sub("a") == Exit.TIMEOUT


def test_without_options_it_is_qos_1_and_for_as_long_as_it_runs(subscribed: list[Options]) -> None:
    sub("a")
    sub("a")
    first, second = subscribed
    assert (first.address, first.qos, first.filters) == (Address(), 1, ("a",))
    assert (first.durable, first.resume, first.metadata) == (False, False, False)
    assert first.client_id != second.client_id


def test_the_options_say_what_and_how(subscribed: list[Options]) -> None:
    sub("a -t 'b/#' -h h -p 1 -i me -u u -P p -k 9 -q 2 -C 3 -W 1.5 -R --quiet")
    sub("a --from @-1h --until 9 --exec ./work.sh --exec-timeout 5 --grace 60")
    first, second = subscribed
    address = Address(host="h", port=1, username="u", password="p", keep_alive_s=9)
    assert (first.address, first.filters, first.client_id) == (address, ("a", "b/#"), "me")
    assert (first.qos, first.count, first.timeout_s, first.durable) == (2, 3, 1.5, True)
    assert (first.ignore_retained, first.quiet) == (True, True)
    assert (second.replay.start, second.replay.until) == ("@-1h", "9")
    assert second.command == Command("./work.sh", timeout_s=5, grace_s=60)


def test_a_replay_that_a_filter_begins_may_be_ended_too(subscribed: list[Options]) -> None:
    sub("'$replay/earliest/a' --until 5")
    assert (subscribed[0].replay.start, subscribed[0].replay.until) == (None, "5")


def test_mosquittos_options_mean_the_same(subscribed: list[Options]) -> None:
    sub("-c -i me -t a -T 'a/b' -T a/c -U old -E -x 60 -V 5 -L 'mqtt://h/home/#' -v -N -R")
    sub("-t a")
    first, second = subscribed
    assert (first.address.host, first.filters) == ("h", ("a", "home/#"))
    assert (first.filtered_out, first.unsubscribe) == (("a/b", "a/c"), ("old",))
    assert (first.count, first.session_expiry_s) == (0, 60)
    assert written(first) == b"a b"
    assert second.session_expiry_s == 30 * 86_400


def test_to_unsubscribe_is_enough_to_do(subscribed: list[Options]) -> None:
    sub("-i me -U a")
    assert (subscribed[0].filters, subscribed[0].resume) == ((), True)


def test_a_group_shares_each_of_its_filters(subscribed: list[Options]) -> None:
    sub("a 'b/#' --group g")
    assert subscribed[0].filters == ("$share/g/a", "$share/g/b/#")


def test_a_durable_subscriber_resumes_without_a_topic(subscribed: list[Options]) -> None:
    sub("--id me --resume")
    assert (subscribed[0].filters, subscribed[0].resume) == ((), True)


def test_what_to_do_with_the_session_that_is_there(subscribed: list[Options]) -> None:
    sub("a --id me --fresh")
    sub("a --id me --only")
    assert [(options.fresh, options.only) for options in subscribed] == [
        (True, False),
        (False, True),
    ]


def test_a_qos_for_no_topic_is_said_to_have_no_effect(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in ("--id me --resume", "a --id me -q 2", "--id me --resume --quiet -q 2"):
        sub(arguments)
        assert "-q" not in capfd.readouterr().err
    sub("--id me --resume -q 2")
    assert "-q without effect" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", b"b\n"),
        ("-N", b"b"),
        ("-v", b"a b\n"),
        ("-F %t=%p", b"a=b\n"),
        ("-F %t=%p -N", b"a=b"),
        ("--json", b'{"topic":"a","payload":"b","qos":0,"retain":false}\n'),
    ],
)
def test_how_a_message_is_written(subscribed: list[Options], arguments: str, line: bytes) -> None:
    sub(f"a {arguments}")
    assert written(subscribed[0]) == line


@pytest.mark.parametrize(
    ("arguments", "metadata"),
    [
        ("", False),
        ("-F %p", False),
        ("-F %{offset}", True),
        ("--json", True),
        ("--exec true", True),
        ("--from earliest", True),
    ],
)
def test_metadata_is_asked_for_only_where_it_is_used(
    subscribed: list[Options], arguments: str, metadata: bool
) -> None:
    sub(f"a {arguments}")
    assert subscribed[0].metadata is metadata


def test_a_replay_may_end_and_may_take_its_time(subscribed: list[Options]) -> None:
    sub("a --from 1 --exit-at-end --speed 10x")
    assert subscribed[0].replay == Replay("1", "latest", 10)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "a topic is missing"),
        ("--resume", "--resume needs the --id"),
        ("a --fresh", "--fresh needs the --id"),
        ("a --only", "--only needs the --id"),
        ("--only --id me --resume", "--only needs the topics"),
        ("a --id me --resume --fresh", "use one"),
        ("a --group a/b", "--group 'a/b'"),
        ("a --group ''", "--group ''"),
        ("a --id ''", "--id is empty"),
        ("a --group +", "--group '+'"),
        ("a --exit-at-end", "--until ends a replay"),
        ("a --from 1 --exit-at-end --id me", "--exit-at-end goes with --from"),
        ("a --from 1 --exit-at-end --until 9", "--exit-at-end goes with --from"),
        ("a --speed 2x", "--speed is like 1x"),
        ("a --from 1 --speed fast", "--speed is like 1x"),
        ("a --from 1 --speed 1x --id me", "--speed is like 1x"),
        ("a --from alice", "--from 'alice' is no place in the log"),
        ("a --from 1 --until 2:3", "--until: until is one place"),
        ("--resume --id me --from 1", "--resume says where to begin"),
        ("--until 5 --id me --resume", "--until needs the topics"),
        ("a -c", "-c needs the --id"),
        ("a -E", "-E needs the --id"),
        ("a -U b", "--unsubscribe needs the --id"),
        ("a -x 60", "--session-expiry-interval needs the --id"),
        ("a -V mqttv311", "-V mqttv311: these commands speak MQTT 5 only"),
        ("a --until 5", "--until ends a replay, and none begins: add --from"),
        ("'$replay/earliest/a' b --until 5", "--until ends a replay, and none begins: add --from"),
        ("a --json -F %p", "use one of"),
        ("a --json --exec true", "use one of"),
    ],
)
def test_what_contradicts_is_a_usage_error(
    subscribed: list[Options], arguments: str, says: str
) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        sub(arguments)
    assert says in refused.value.message
    assert subscribed == []


def test_a_terminal_and_no_topic_is_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    monkeypatch.setattr("cli.messages.interactive.subscribe_lines", asked.append)
    sub("-i me")
    assert [(options.client_id, options.durable) for options in asked] == [("me", True)]
