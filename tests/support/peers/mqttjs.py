"""MQTT.js: one node process, told what to do by lines of JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar

import pytest

from tests.support.broker_process import ROOT
from tests.support.peers.peer import TIMEOUT_S, Message, Options, Peer, Subscription, UserProperties

MODULE = ROOT / "node_modules" / "mqtt"

NEEDS_MQTTJS = [
    pytest.mark.skipif(shutil.which("node") is None, reason="needs node"),
    pytest.mark.skipif(
        not MODULE.exists(), reason="needs MQTT.js: npm install --no-save --no-package-lock mqtt@5"
    ),
]


class Node:
    """The process, and who waits for which of its lines."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["node", str(Path(__file__).with_name("mqttjs.js"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._numbers = count(1)
        self._answers: dict[int, Queue[dict[str, Any]]] = {}
        self._peers: dict[int, MqttJsPeer] = {}
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def add(self, peer: MqttJsPeer) -> int:
        number = next(self._numbers)
        self._peers[number] = peer
        return number

    def ask(self, **command: Any) -> dict[str, Any]:
        """Returns the first answer to the command."""
        number = next(self._numbers)
        answers: Queue[dict[str, Any]] = Queue()
        self._answers[number] = answers
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command | {"number": number}).encode() + b"\n")
        self._process.stdin.flush()
        answer = answers.get(timeout=TIMEOUT_S)
        assert not answer.get("error"), answer
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "number" in told:
                self._answers[told["number"]].put(told)
            elif "message" in told:
                self._peers[told["peer"]].inbox.put(received(told["message"]))
            else:
                self._peers[told["peer"]].ended.put(told["ended"])

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._reader.join()


class MqttJsPeer(Peer):
    node: ClassVar[Node]
    over: ClassVar[dict[str, Any]] = {}
    """MQTT.js' options that say over what to connect: TCP, when it says nothing."""

    def __init__(self, port: int, version: int, options: Options) -> None:
        super().__init__(port, version, options)
        self._number = self.node.add(self)
        how: dict[str, Any] = self.over | {
            "port": port,
            "protocolVersion": version,
            "clientId": options.client_id,
            "clean": options.clean,
            "properties": stated(
                sessionExpiryInterval=options.expiry_s,
                receiveMaximum=options.receive_maximum,
                maximumPacketSize=options.packet_bytes_max,
            ),
        }
        if options.will is not None:
            message = options.will.message
            delay = {"willDelayInterval": options.will.delay_s} if version == 5 else {}
            how["will"] = {
                "topic": message.topic,
                "payload": b64encode(message.payload).decode(),
                "qos": message.qos,
                "retain": message.retain,
                "properties": message_properties(message) | delay,
            }
        answer = self._ask("connect", options=how, acknowledges=options.acknowledges)
        self.session_present = answer["sessionPresent"]

    def _ask(self, command: str, **parameters: Any) -> dict[str, Any]:
        return self.node.ask(command=command, peer=self._number, **parameters)

    def subscribe_to(self, subscription: Subscription) -> int:
        options: dict[str, Any] = {"qos": subscription.qos}
        if self.version == 5:
            options |= {
                "nl": subscription.no_local,
                "rap": subscription.retain_as_published,
                "rh": subscription.retain_handling,
                "properties": stated(
                    subscriptionIdentifier=subscription.id,
                    userProperties=grouped(subscription.user) or None,
                ),
            }
        answer = self._ask("subscribe", filter=subscription.filter, options=options)
        code: int = answer["reasonCode"]
        return code

    def unsubscribe(self, filter: str) -> None:
        self._ask("unsubscribe", filter=filter)

    def send(self, message: Message, *, topic_alias: int | None = None) -> UserProperties | None:
        properties = message_properties(message) | stated(topicAlias=topic_alias)
        answer = self._ask(
            "publish",
            topic=message.topic,
            payload=b64encode(message.payload).decode(),
            options={"qos": message.qos, "retain": message.retain, "properties": properties},
        )
        return flat(answer["properties"].get("userProperties", {}))

    def disconnect(self) -> None:
        self._ask("disconnect")

    def cut(self) -> None:
        self._ask("cut")


def stated(**properties: Any) -> dict[str, Any]:
    return {name: value for name, value in properties.items() if value is not None}


def message_properties(message: Message) -> dict[str, Any]:
    correlation = message.correlation
    return stated(
        messageExpiryInterval=message.expiry_s,
        payloadFormatIndicator=None
        if message.payload_format is None
        else bool(message.payload_format),
        contentType=message.content_type,
        responseTopic=message.response_topic,
        correlationData=None if correlation is None else b64encode(correlation).decode(),
        userProperties=grouped(message.user) or None,
    )


def grouped(user: UserProperties) -> dict[str, list[str]]:
    """As MQTT.js has them: by key, so that only the order within a key is kept."""
    values: dict[str, list[str]] = {}
    for key, value in user:
        values.setdefault(key, []).append(value)
    return values


def flat(user: dict[str, str | list[str]]) -> UserProperties:
    return [
        (key, value)
        for key, values in user.items()
        for value in (values if isinstance(values, list) else [values])
    ]


def received(message: dict[str, Any]) -> Message:
    format_indicator = message.get("payloadFormatIndicator")
    correlation = message.get("correlationData")
    identifiers = message.get("subscriptionIdentifier", [])
    return Message(
        message["topic"],
        b64decode(message["payload"]),
        message["qos"],
        message["retain"],
        message.get("messageExpiryInterval"),
        None if format_indicator is None else int(format_indicator),
        message.get("contentType"),
        message.get("responseTopic"),
        None if correlation is None else b64decode(correlation),
        flat(message.get("userProperties", {})),
        identifiers if isinstance(identifiers, list) else [identifiers],
    )


class WithNode:
    """A node process for the tests of a class."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def node(cls) -> Iterator[None]:
        MqttJsPeer.node = Node()
        yield
        MqttJsPeer.node.stop()
