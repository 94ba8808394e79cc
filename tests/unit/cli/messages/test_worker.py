"""What becomes of a message whose command succeeded or failed."""

from __future__ import annotations

from typing import Any

import pytest
from paho.mqtt.client import MQTTMessage

from broker.config import Config
from broker.mqtt.decode import Decoder
from broker.mqtt.limits import Limits
from broker.mqtt.packets import MQTT_5, Ack
from cli.messages.execute import Command
from cli.messages.worker import ATTEMPTS_MAX, Worker, refusal
from cli.terminal.failure import ConnectionLost
from cli.terminal.interrupt import Interrupt
from tests.support.scripted_client import ScriptedClient, message

SHARED = ("$share/g/t",)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.messages.execute.TURN_S", 0.02)
    monkeypatch.setattr("cli.messages.worker.RECONNECT_S", 0.0)


def worker(
    client: ScriptedClient,
    command: str,
    filters: tuple[str, ...] = SHARED,
    reconnected: list[str] | None = None,
) -> Worker:
    scripted: Any = client  # It has the face of a Client.

    def reconnect() -> None:
        if reconnected is not None:
            reconnected.append("again")

    return Worker(scripted, Interrupt(), Command(command), filters, reconnect)


def did(client: ScriptedClient) -> list[tuple[object, ...]]:
    return [entry[:2] for entry in client.did]


def job(packet_id: int = 1, offset: int = 7) -> MQTTMessage:
    return message("t", packet_id, offset=offset)


def test_success_acknowledges() -> None:
    client = ScriptedClient()
    assert worker(client, "true").deal_with(job())
    assert did(client) == [("acknowledge", 1)]


def test_a_group_that_tries_again_is_told_of_a_failure_at_once() -> None:
    client = ScriptedClient()
    client.told = {"refusals": "retried"}
    working = worker(client, "exit 3")
    assert not working.deal_with(job())
    assert working.failed is None
    [(what, packet_id, packet)] = client.did
    assert (what, packet_id) == ("refuse", 1)
    assert b"exit code 3" in packet  # type: ignore[operator]


def test_where_a_refusal_is_final_the_worker_tries_first() -> None:
    """[MQTT-4.8.2-6]"""
    client = ScriptedClient()
    working, failing = worker(client, "false"), job()
    for _ in range(ATTEMPTS_MAX - 1):
        working.deal_with(failing)
        assert working.failed is not None
        assert client.did == []
    working.deal_with(failing)
    assert (working.failed, did(client)) == (None, [("refuse", 1)])


def test_what_is_of_no_group_is_never_refused() -> None:
    client = ScriptedClient()
    working, failing = worker(client, "false", ("t",)), job()
    for _ in range(2 * ATTEMPTS_MAX):
        working.deal_with(failing)
    assert (client.did, working.failed is not None) == ([], True)


def test_what_was_done_while_the_connection_was_lost_is_not_done_again(tmp_path: Any) -> None:
    client = ScriptedClient([ConnectionLost("closed")])
    reconnected: list[str] = []
    working = worker(client, f"sleep 0.3; echo x >> {tmp_path}/ran", reconnected=reconnected)
    assert working.deal_with(job(packet_id=1))
    assert (reconnected, client.did) == (["again"], [])
    assert working.deal_with(job(packet_id=9))
    assert did(client) == [("acknowledge", 9)]
    assert (tmp_path / "ran").read_text() == "x\n"


def test_an_acknowledgement_that_may_be_lost_is_given_again(tmp_path: Any) -> None:
    """For the first message after that, and for no other."""
    client = ScriptedClient()
    working = worker(client, f"echo x >> {tmp_path}/ran")
    working.deal_with(job(packet_id=1))
    working.lost()
    working.deal_with(job(packet_id=2))
    assert (tmp_path / "ran").read_text() == "x\n"
    working.lost()
    working.deal_with(job(packet_id=3, offset=8))
    working.deal_with(job(packet_id=4))
    assert (tmp_path / "ran").read_text() == "x\nx\nx\n"


def test_a_refusal_is_a_puback_with_its_reason() -> None:
    for reason in ("exit code 3", 300 * "x"):
        decoder = Decoder(Limits.of(Config()))
        decoder.version = MQTT_5
        decoder.feed(refusal(513, reason))
        packet = decoder.next([])
        assert isinstance(packet, Ack)
        assert ([*packet.packet_ids], packet.reason_code) == ([513], 0x80)
        assert packet.reason_string == reason[:200]
