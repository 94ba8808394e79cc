"""A world with users and rules, and clients of these users whose every delivery is looked at."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from broker.clients.client import Client
from broker.clients.faces import Peer
from broker.documents import UserDocument
from broker.message import WallUs
from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    FromClient,
    FromServer,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    UserProperties,
    Will,
)
from broker.security.rules import Holder, Right, Rule
from tests.support.clients import NOTHING_TO_TELL, Transport, services
from tests.support.raw_client import next_packet
from tests.support.world import World

VERSIONS = MQTT_3_1_1, MQTT_5


def rule(text: str, holder: Holder) -> Rule:
    """Of `allow publish a/#`."""
    effect, right, topic_filter = text.split(" ", 2)
    return Rule(holder, effect == "allow", Right(right), topic_filter)


async def make_user(world: World, name: str, *texts: str, roles: str = "") -> None:
    """With these rules."""
    await world.users.put(UserDocument(name, "", "", roles, WallUs(1), WallUs(1)))
    await allow(world, name, *texts)


async def allow(world: World, name: str, *texts: str) -> None:
    """Also `deny ...`."""
    if texts:
        await world.permissions.add([rule(text, Holder(name)) for text in texts])


async def take_back(world: World, name: str, *texts: str) -> None:
    await world.permissions.remove([rule(text, Holder(name)) for text in texts])


class Watching(Transport):
    """Says of each PUBLISH that is written whether its client may have it at that moment."""

    def __init__(self, client: PermittedClient) -> None:
        super().__init__()
        self._client = client
        self._unread = bytearray()

    def write(self, data: bytes) -> None:
        super().write(data)
        self._unread += data
        while (packet := next_packet(self._unread, self._client.version)) is not None:
            self._client.got(packet)


@dataclass
class PermittedClient:
    """Acknowledges only when told to."""

    world: World
    user: str
    version: int = MQTT_5
    client_id: str = "c1"
    settings: dict[str, Any] = field(default_factory=dict)
    packets: list[FromServer] = field(default_factory=list)
    messages: list[Publish] = field(default_factory=list)
    forbidden: list[str] = field(default_factory=list)
    unanswered: list[Ack] = field(default_factory=list)

    def __post_init__(self) -> None:
        config: Any = replace(NOTHING_TO_TELL, **self.settings)
        self.services = services(self.world, config)
        self.transport = Watching(self)
        peer = Peer("here", certificate_user=self.user)
        self.peer = Client(self.services, self.transport, peer, self.world.clock.monotonic())
        self._packet_id = 0

    def got(self, packet: FromServer) -> None:
        self.packets.append(packet)
        if isinstance(packet, Publish):
            self.messages.append(packet)
            rights = self.world.permissions.rights(self.user, None, self.client_id)
            if not rights.may_receive(packet.topic):
                self.forbidden.append(packet.topic)
            if packet.qos:
                kind = PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC
                self.unanswered.append(Ack(kind, [packet.packet_id]))
        elif isinstance(packet, Ack) and packet.type is PacketType.PUBREL:
            self.unanswered.append(Ack(PacketType.PUBCOMP, packet.packet_ids))

    @property
    def topics(self) -> list[str]:
        return [message.topic for message in self.messages]

    def send(self, packet: FromClient) -> None:
        if not self.transport.closed.is_set():
            self.peer.receive(encode(packet, self.version), self.world.clock.monotonic())

    def connect(
        self,
        *,
        clean: bool = False,
        expiry_s: int = 600,
        will: Will | None = None,
        user_properties: UserProperties | None = None,
    ) -> None:
        self.send(
            Connect(
                self.version,
                self.client_id,
                clean,
                0,
                will,
                session_expiry_s=expiry_s if self.version == MQTT_5 else None,
                user_properties=user_properties or [],
            )
        )

    async def connected(self, *, will: Will | None = None) -> int:
        """The Reason Code of its CONNACK."""
        self.connect(will=will)
        await self.world.settled()
        (connack,) = [packet for packet in self.packets if isinstance(packet, Connack)]
        return connack.reason_code

    def subscribe(
        self, *filters: str, qos: int = 1, user_properties: UserProperties | None = None
    ) -> None:
        requests = [SubscriptionRequest(topic_filter, qos) for topic_filter in filters]
        properties = user_properties or [] if self.version == MQTT_5 else []
        self.send(Subscribe(self._next_id(), requests, user_properties=properties))

    async def subscribed(
        self, *filters: str, qos: int = 1, user_properties: UserProperties | None = None
    ) -> list[int]:
        """The codes of its SUBACK."""
        self.subscribe(*filters, qos=qos, user_properties=user_properties)
        await self.world.settled()
        subacks = [packet for packet in self.packets if isinstance(packet, Suback)]
        return [*subacks[-1].reason_codes]

    def publish(self, topic: str, qos: int = 1, *, retain: bool = False) -> int:
        """Its Packet Identifier."""
        packet_id = self._next_id() if qos else 0
        self.send(Publish(topic, b"x", qos, retain, False, packet_id))
        return packet_id

    async def published(self, topic: str, qos: int = 1, *, retain: bool = False) -> int | None:
        """The Reason Code of the acknowledgement, which comes; None: the connection ended, or QoS 0
        is not acknowledged."""
        packet_id = self.publish(topic, qos, retain=retain)
        await self.world.settled()
        if not qos or self.transport.closed.is_set():
            return None
        kind = PacketType.PUBACK if qos == 1 else PacketType.PUBREC
        (ack,) = [
            packet
            for packet in self.packets
            if isinstance(packet, Ack) and packet.type is kind and packet_id in packet.packet_ids
        ]
        if qos == 2 and ack.reason_code < 0x80:
            self.send(Ack(PacketType.PUBREL, [packet_id]))
        return ack.reason_code

    def acknowledge(self) -> None:
        """All that came."""
        answers, self.unanswered = self.unanswered, []
        for answer in answers:
            self.send(answer)

    def refuse(self) -> None:
        """All that came, of QoS 1."""
        answers, self.unanswered = self.unanswered, []
        for answer in answers:
            self.send(Ack(answer.type, answer.packet_ids, 0x80))

    def stall(self, *, yes: bool) -> None:
        """Its socket is full, or has room again."""
        if not self.transport.closed.is_set():
            self.peer.writable(yes=not yes)

    def leave(self, *, lost: bool = False) -> None:
        if self.transport.closed.is_set():
            return
        if lost:
            self.peer.lost()
            self.transport.closed.set()
        else:
            self.send(Disconnect())

    def _next_id(self) -> int:
        self._packet_id += 1
        return self._packet_id
