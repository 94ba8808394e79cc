"""A client of the command line whose broker is a script: what happens in each turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace

from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from cli.net.address import Address
from cli.net.client import Acknowledged, UserProperties, packet_properties
from cli.terminal.failure import ConnectionLost

Happening = (
    MQTTMessage | Acknowledged | ConnectionLost | type[KeyboardInterrupt] | Callable[[], object]
)
"""What arrives, what goes wrong, or what else happens meanwhile."""


class ScriptedClient:
    """Like `cli.net.client.Client`. `turns` is the script, `did` what was asked of it."""

    def __init__(self, *turns: Sequence[Happening]) -> None:
        self.turns = deque(turns)
        self.did: list[tuple[object, ...]] = []
        self.arrived: deque[MQTTMessage] = deque()
        self.acknowledged: deque[Acknowledged] = deque()
        self.address = Address(username="ann")
        self.receive_max = 65_535
        self.packet_bytes_max: int | None = None
        self.sessions = deque[bool]()
        """Whether the broker has a session, at each `open`; then never."""
        self.reasons: dict[str, int] = {}
        """Of SUBACK, by Topic Filter; granted QoS 1 otherwise. Of UNSUBACK: no such subscription
        unless it was subscribed to here."""
        self.reports = deque[UserProperties]()
        """What the broker tells of the session, at each `open`; then nothing."""
        self.session_report: UserProperties = ()
        self.told: Mapping[str, str] = {}
        """User Properties of each SUBACK."""
        self._subscribed: set[str] = set()
        self._packet_id = 0

    def open(
        self,
        *,
        clean_start: bool,
        session_expiry_s: int = 0,
        receive_max: int = 0,
        user_properties: UserProperties = (),
    ) -> bool:
        self.did.append(("open", clean_start, session_expiry_s, receive_max))
        self.session_report = self.reports.popleft() if self.reports else ()
        return self.sessions.popleft() if self.sessions else False

    def turn(
        self, timeout_s: float, also: Sequence[object] = (), *, interruptible: bool = True
    ) -> list[object]:
        for happening in self.turns.popleft() if self.turns else ():
            match happening:
                case MQTTMessage():
                    self.arrived.append(happening)
                case Acknowledged():
                    self.acknowledged.append(happening)
                case ConnectionLost():
                    raise happening
                case type():
                    raise happening
                case _:
                    happening()
        return []

    def subscribe_to(
        self,
        filters: Sequence[str],
        qos: int,
        *,
        new_only: bool = False,
        user_properties: UserProperties = (),
    ) -> list[ReasonCode]:
        self.did.append(("subscribe", tuple(filters), qos, dict(user_properties)))
        self._subscribed.update(filters)
        return [reason(PacketTypes.SUBACK, self.reasons.get(one, 1)) for one in filters]

    def unsubscribe_from(self, filters: Sequence[str]) -> list[ReasonCode]:
        self.did.append(("unsubscribe", *filters))
        codes = [0 if one in self._subscribed else 0x11 for one in filters]
        self._subscribed.difference_update(filters)
        return [reason(PacketTypes.UNSUBACK, code) for code in codes]

    def publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: object
    ) -> SimpleNamespace:
        self._packet_id += 1
        self.did.append(("publish", topic, payload))
        return SimpleNamespace(mid=self._packet_id)

    def acknowledge(self, messages: Iterable[MQTTMessage]) -> None:
        self.did.append(("acknowledge", *(message.mid for message in messages)))

    def granted(self) -> Mapping[str, str]:
        return self.told

    def refuse(self, message: MQTTMessage, packet: bytes) -> None:
        self.did.append(("refuse", message.mid, packet))

    def unsent_bytes(self) -> int:
        return 0

    def close(self, *, end_session: bool = False) -> None:
        self.did.append(("close", end_session))


def message(
    topic: str, packet_id: int, *, qos: int = 1, payload: bytes = b"x", offset: int | None = None
) -> MQTTMessage:
    made = MQTTMessage(packet_id, topic.encode())
    made.payload, made.qos = payload, qos
    if offset is not None:
        made.properties = packet_properties(PacketTypes.PUBLISH, [("offset", str(offset))])
    return made


def acknowledged(
    packet_id: int, reason_code: int = 0, user_properties: Mapping[str, str] | None = None
) -> Acknowledged:
    return Acknowledged(packet_id, reason(PacketTypes.PUBACK, reason_code), user_properties or {})


def reason(packet_type: int, code: int) -> ReasonCode:
    return ReasonCode(packet_type, identifier=code)
