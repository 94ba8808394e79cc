"""A small MQTT client (3.1.1 and 5.0) that survives the broker and remembers what it must.

Its session state is in this process, so killing the broker loses nothing of it. It does what the
standard asks of a client, to the letter, since any looseness here would hide or invent a fault:

- A publisher keeps unacknowledged QoS 1 and 2 PUBLISH packets and unanswered PUBRELs, and re-sends
  them when it is connected again: same Packet Identifier, same order, DUP on the PUBLISH
  [MQTT3-4.4.0-1, MQTT3-4.6.0-1]. It takes the lowest free Packet Identifier, so an identifier is
  used again right after its release: a broker that forgot the release takes the next message for
  a repetition, and the checker misses it.
- A subscriber keeps the Packet Identifiers of QoS 2 messages until PUBREL, across connections
  [MQTT3-4.3.3-2], acknowledges in the order received [MQTT3-4.6.0-2], and drops the
  acknowledgements that it still owed when the connection ended.

Left out: keep alive, retained messages, wills, anything that the crash tests do not use.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from tests.crash.history import Connected, Delivery, History, Key, Published, decode_payload

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, SUBACK = range(1, 10)
UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(10, 15)
MQTT_3, MQTT_5 = 4, 5
FAILURE = 0x80
SERVER_SHUTTING_DOWN = b"\x8b"
SESSION_EXPIRY_S = 86_400


def variable_length(number: int) -> bytes:
    encoded = bytearray()
    while True:
        number, low = divmod(number, 128)
        encoded.append(low | (0x80 if number else 0))
        if not number:
            return bytes(encoded)


def read_variable_length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """The number at `at` and where it ended; None if it is not complete."""
    value = shift = 0
    for position in range(at, min(at + 4, len(data))):
        value |= (data[position] & 0x7F) << shift
        shift += 7
        if data[position] < 0x80:
            return value, position + 1
    return None


def packet(kind: int, flags: int, body: bytes) -> bytes:
    return bytes((kind << 4 | flags,)) + variable_length(len(body)) + body


def string(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


class RecordingClient(asyncio.Protocol):
    """One client identifier, connected or not, with a durable session unless it says otherwise.

    `online` is set from CONNACK until the connection ends; `offline` is its opposite.
    """

    def __init__(
        self,
        name: str,
        history: History,
        *,
        version: int = MQTT_3,
        receive_max: int = 65_535,
        durable: bool = True,
    ) -> None:
        self.name = name
        self.online = asyncio.Event()
        self.offline = asyncio.Event()
        self.offline.set()
        self._history = history
        self._version = version
        self._receive_max = receive_max
        self._durable = durable
        self._connections = 0
        self._connect: Connected | None = None
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._leaving = False
        self._connack: asyncio.Future[None] | None = None
        self._pingresp = asyncio.Event()

    async def connect(self, port: int) -> None:
        """Returns after CONNACK and after `resumed`; raises OSError if it does not come to that."""
        loop = asyncio.get_running_loop()
        connack = self._connack = loop.create_future()
        try:
            await loop.create_connection(lambda: self, "127.0.0.1", port)
            await connack
        finally:
            connack.cancel()  # Of no effect unless we are cancelled: nobody waits for it any more.

    async def ping(self) -> None:
        """Returns when the broker has read all that was written before, or the connection ended."""
        self._pingresp.clear()
        self._write(packet(PINGREQ, 0, b""))
        if self._transport is not None:
            await self._pingresp.wait()

    async def disconnect(self) -> None:
        """DISCONNECT; returns when the broker has closed the connection, and so has read it all."""
        if self._transport is not None:
            self._write(packet(DISCONNECT, 0, b""))
            self._leaving = True
            self.ends(clean=True)
        await self.offline.wait()

    def pause_reading(self) -> None:
        """Leave in the socket what the broker sends."""
        assert self._transport is not None
        self._transport.pause_reading()

    def drop(self) -> None:
        """Lose the connection, as a client does that is killed."""
        if self._transport is not None:
            self.ends()
            self._transport.abort()

    def ends(self, *, clean: bool = False, at: int | None = None) -> None:
        """Note that the connection is over, as far as we know, now or `at`; `clean` as in
        `Connected`."""
        if self._connect is not None:
            self._connect.ended_at = self._history.now() if at is None else at
            self._connect.clean = clean
            self._connect = None

    def resumed(self, session_present: bool) -> None:
        """Connected (again); subclasses send what is due."""

    def received(self, kind: int, flags: int, body: bytes) -> None:
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._leaving = False
        self._buffer.clear()
        self.offline.clear()
        # Connect flags: Clean Session (3.1.1) and Clean Start (5.0) only. Keep alive 0.
        body = string("MQTT") + bytes((self._version, 0 if self._durable else 0x02, 0, 0))
        if self._version == MQTT_5:
            properties = b"\x11" + (SESSION_EXPIRY_S * self._durable).to_bytes(4, "big")
            properties += b"\x21" + self._receive_max.to_bytes(2, "big")
            body += variable_length(len(properties)) + properties
        self._write(packet(CONNECT, 0, body + string(self.name)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends()
        self._transport = None
        self.online.clear()
        self.offline.set()
        self._pingresp.set()
        if self._connack is not None and not self._connack.done():
            self._connack.set_exception(ConnectionResetError(f"{self.name}: no CONNACK"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        at = 0
        while (header := read_variable_length(self._buffer, at + 1)) is not None:
            length, start = header
            if len(self._buffer) < start + length:
                break
            first, body = self._buffer[at], bytes(self._buffer[start : start + length])
            at = start + length
            if first >> 4 == CONNACK:
                self._connected(body)
            elif first >> 4 == PINGRESP:
                self._pingresp.set()
            elif first >> 4 == DISCONNECT:
                if body[:1] != SERVER_SHUTTING_DOWN:
                    self._unexpected(f"DISCONNECT {body.hex()}")
            else:
                self.received(first >> 4, first & 0x0F, body)
        del self._buffer[:at]

    def _connected(self, body: bytes) -> None:
        assert self._connack is not None
        if body[1]:
            if not self._connack.done():
                self._connack.set_exception(ConnectionRefusedError(f"CONNACK {body.hex()}"))
            self.drop()
            return
        self._connections += 1
        session_present = bool(body[0] & 1)
        self._connect = Connected(
            self.name, self._connections, self._history.epoch, session_present, self._durable
        )
        self._connect.at = self._history.now()
        self._history.connects.append(self._connect)
        self.online.set()
        self.resumed(session_present)
        if not self._connack.done():
            self._connack.set_result(None)

    @property
    def _open(self) -> bool:
        """Whether what is written now goes out: not after DISCONNECT or without a broker."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not self._leaving

    def _write(self, data: bytes) -> None:
        """Without an open connection nothing happens: the session state is what counts."""
        if self._transport is not None and self._open:
            self._transport.write(data)

    def _answer(self, kind: int, packet_id: int) -> None:
        """PUBACK, PUBREC, PUBREL or PUBCOMP, all of the same form in both versions."""
        self._write(packet(kind, 0x02 if kind == PUBREL else 0, packet_id.to_bytes(2, "big")))

    def _unexpected(self, what: str) -> None:
        self._history.unexpected.append(f"{self.name}: {what} in epoch {self._history.epoch}")


@dataclass(slots=True)
class Unacknowledged:
    key: Key
    qos: int
    body: bytes


class RecordingPublisher(RecordingClient):
    """Publishes numbered messages; `window` bounds its unfinished QoS 1 and 2 exchanges."""

    def __init__(
        self, name: str, history: History, *, version: int = MQTT_3, window: int = 100
    ) -> None:
        super().__init__(name, history, version=version)
        self._window = window
        self._sequence = 0
        self._unacknowledged: dict[int, Unacknowledged] = {}
        self._unreleased: dict[int, Key] = {}
        self._progress = asyncio.Event()

    @property
    def unfinished(self) -> list[Key]:
        waiting = [message.key for message in self._unacknowledged.values()]
        return waiting + list(self._unreleased.values())

    async def room(self) -> None:
        """Returns when connected, with room in the window."""
        while not self.online.is_set() or len(self.unfinished) >= self._window:
            self._progress.clear()
            await self._progress.wait()

    async def finished(self) -> None:
        """Returns when every exchange is complete."""
        while self.unfinished:
            self._progress.clear()
            await self._progress.wait()

    def publish(self, topic: str, encode: Callable[[Key], bytes], qos: int) -> Key:
        """Send one message now; `encode` makes the payload from the key it is given."""
        self._sequence += 1
        key = Key(self.name, self._sequence)
        self._history.published[key] = Published(topic, qos, at=self._history.now())
        properties = b"\x00" if self._version == MQTT_5 else b""
        if qos == 0:
            self._write(packet(PUBLISH, 0, string(topic) + properties + encode(key)))
            return key
        packet_id = next(
            free
            for free in count(1)
            if free not in self._unacknowledged and free not in self._unreleased
        )
        body = string(topic) + packet_id.to_bytes(2, "big") + properties + encode(key)
        self._unacknowledged[packet_id] = Unacknowledged(key, qos, body)
        self._write(packet(PUBLISH, qos << 1, body))
        return key

    def resumed(self, session_present: bool) -> None:
        for packet_id in self._unreleased:
            self._answer(PUBREL, packet_id)
        for message in self._unacknowledged.values():
            self._history.published[message.key].sent += 1
            self._write(packet(PUBLISH, 0x08 | message.qos << 1, message.body))
        self._progress.set()

    def received(self, kind: int, flags: int, body: bytes) -> None:
        packet_id = int.from_bytes(body[:2], "big")
        message = self._unacknowledged.get(packet_id)
        if len(body) > 2 and body[2] >= FAILURE and kind in (PUBACK, PUBREC):
            self._unexpected(f"message refused with {body.hex()}")
        if kind == PUBACK and message is not None and message.qos == 1:
            self._acknowledged(packet_id)
        elif kind == PUBREC and message is not None and message.qos == 2:
            self._unreleased[packet_id] = message.key
            self._acknowledged(packet_id)
            self._answer(PUBREL, packet_id)
        elif kind == PUBREC and packet_id in self._unreleased:
            self._answer(PUBREL, packet_id)
        elif kind == PUBCOMP and packet_id in self._unreleased:
            del self._unreleased[packet_id]
            self._progress.set()
        else:
            self._unexpected(f"packet of type {kind} for identifier {packet_id}")

    def _acknowledged(self, packet_id: int) -> None:
        published = self._history.published[self._unacknowledged.pop(packet_id).key]
        published.acknowledged_in = self._history.epoch
        self._progress.set()


class Answers:
    """The answers of one kind that a subscriber owes, sent in order, `delay_s()` apart if given."""

    def __init__(self, delay_s: Callable[[], float] | None) -> None:
        self._delay_s = delay_s
        self._due: deque[Callable[[], None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._suspended = False

    def __len__(self) -> int:
        return len(self._due)

    def add(self, answer: Callable[[], None]) -> None:
        self._due.append(answer)
        self._go_on()

    def suspend(self) -> None:
        """Send nothing until `resume`."""
        self._suspended = True
        self._stop_timer()

    def resume(self) -> None:
        self._suspended = False
        self._go_on()

    def hurry(self) -> None:
        """Send what is due, and from now on without delay."""
        self._delay_s = None
        self._stop_timer()
        self._go_on()

    def forget(self) -> None:
        """The connection that they belong to is gone."""
        self._due.clear()
        self._stop_timer()

    def _go_on(self) -> None:
        while self._due and self._timer is None and not self._suspended:
            if self._delay_s is None:
                self._due.popleft()()
            else:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._delay_s(), self._fired)

    def _fired(self) -> None:
        self._timer = None
        self._due.popleft()()
        self._go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class RecordingSubscriber(RecordingClient):
    """Keeps `filters` subscribed and acknowledges everything, at its own pace.

    QoS 1 and QoS 2 are answered independently of each other: the standard orders PUBACKs among
    themselves and PUBRECs among themselves, not across.
    """

    def __init__(
        self,
        name: str,
        history: History,
        filters: dict[str, int],
        *,
        version: int = MQTT_3,
        receive_max: int = 65_535,
        durable: bool = True,
        delay_qos1_s: Callable[[], float] | None = None,
        delay_qos2_s: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(name, history, version=version, receive_max=receive_max, durable=durable)
        self._filters = filters
        self.enrol()
        self.subscribed = asyncio.Event()
        self.held: dict[int, Key] = {}
        """Packet Identifiers of QoS 2 messages that the broker has not released."""
        self._answers = {1: Answers(delay_qos1_s), 2: Answers(delay_qos2_s)}
        self._progress = asyncio.Event()

    def enrol(self) -> None:
        """Tell the history what is owed to us."""
        self._history.subscriptions[self.name] = self._filters

    @property
    def settling(self) -> bool:
        """Whether anything is to be answered, or a QoS 2 exchange is open."""
        return bool(self.held) or any(map(len, self._answers.values()))

    def suspend(self) -> None:
        """Acknowledge nothing until `resume`."""
        for answers in self._answers.values():
            answers.suspend()

    def resume(self) -> None:
        for answers in self._answers.values():
            answers.resume()

    def hurry(self) -> None:
        """Acknowledge without delay from now on."""
        for answers in self._answers.values():
            answers.hurry()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns when this is so; looked at after every packet and every answer."""
        while not condition():
            self._progress.clear()
            await self._progress.wait()

    async def settled(self, keys: set[Key]) -> None:
        """Returns when `keys` were delivered, all is answered and no QoS 2 exchange is open."""
        deliveries = self._history.deliveries[self.name]
        seen = 0

        def is_settled() -> bool:
            nonlocal seen
            keys.difference_update(delivery.key for delivery in deliveries[seen:])
            seen = len(deliveries)
            return not keys and not self.settling

        await self.until(is_settled)

    def resumed(self, session_present: bool) -> None:
        if not session_present:
            self.held.clear()
            self.subscribe()

    def subscribe(self) -> None:
        body = b"\x00\x01" + (b"\x00" if self._version == MQTT_5 else b"")
        for topic_filter, qos in self._filters.items():
            body += string(topic_filter) + bytes((qos,))
        self._write(packet(SUBSCRIBE, 0x02, body))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for answers in self._answers.values():
            answers.forget()

    def received(self, kind: int, flags: int, body: bytes) -> None:
        if kind == PUBLISH:
            self._deliver(flags, body)
        elif kind == PUBREL:
            packet_id = int.from_bytes(body[:2], "big")
            self.held.pop(packet_id, None)
            self._answers[2].add(lambda: self._answer(PUBCOMP, packet_id))
        elif kind == SUBACK and max(body[3 if self._version == MQTT_5 else 2 :]) < FAILURE:
            self.subscribed.set()
        else:
            self._unexpected(f"packet of type {kind}: {body[:20].hex()}")
        self._progress.set()

    def _deliver(self, flags: int, body: bytes) -> None:
        qos, dup = flags >> 1 & 3, bool(flags & 0x08)
        at = 2 + int.from_bytes(body[:2], "big")
        topic, packet_id = body[2:at].decode(), 0
        if qos:
            packet_id = int.from_bytes(body[at : at + 2], "big")
            at += 2
        if self._version == MQTT_5:
            properties = read_variable_length(body, at)
            assert properties is not None
            at = properties[0] + properties[1]
        key, _ = decode_payload(body[at:])
        delivery = Delivery(key, topic, qos, packet_id, dup, self._history.epoch, self._connections)
        delivery.at = self._history.now()
        self._history.deliveries[self.name].append(delivery)
        if qos == 2:
            delivery.held_for = self.held.get(packet_id)
            self.held.setdefault(packet_id, key)
        if qos:
            self._answers[qos].add(lambda: self._acknowledge(delivery))

    def _acknowledge(self, delivery: Delivery) -> None:
        if self._open:
            delivery.acknowledged_in = self._history.epoch
        self._answer(PUBACK if delivery.qos == 1 else PUBREC, delivery.packet_id)
        self._progress.set()
