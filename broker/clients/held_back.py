"""Held back: what of a client's messages is not taken now, since its user publishes too fast or the
disk is nearly full, and what that is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from broker.clients.services import Services
from broker.errors import PeerError
from broker.message import Message, Monotonic
from broker.mqtt.packets import Ack, PacketType, Publish, RefusedPublish
from broker.mqtt.reasons import ReasonCode
from broker.plural import counted
from broker.registry.access.slowing import REFUSED_ABOVE_S, Slowed
from broker.security.quotas import Pace

TOO_FAST = "publish quota exceeded"

logger = logging.getLogger(__name__)


def at_pace(
    packets: Sequence[Publish],
    pace: Pace,
    now: Monotonic,
    is_repeated: Callable[[Publish], bool],
    *,
    tells: bool,
) -> tuple[Sequence[Publish], Sequence[Publish]]:
    """What is taken, and what is refused; the rest, of QoS 0, is dropped.

    All is taken, but where the user is far ahead already: then only what was received before and,
    if the client cannot be told (`tells`: not 3.1.1), its QoS 1 and 2.
    """
    taken, refused = packets, []
    if pace.ahead_s(now) > REFUSED_ABOVE_S:
        taken = [p for p in packets if (p.qos and not tells) or is_repeated(p)]
        refused = [p for p in packets if p.qos and tells and not is_repeated(p)]
    pace.take(len(taken), sum([len(p.topic) + len(p.payload) for p in taken]), now)
    return taken, refused


def refusal(packet: Publish, error: PeerError, dropped_as: str) -> RefusedPublish:
    return RefusedPublish(packet.qos, packet.packet_id, error.reason_code, error.reason, dropped_as)


def refusals(packets: Sequence[Publish], reason: str, client_id: str) -> list[Ack]:
    """The answers to packets of QoS 1 and 2 that are not taken. Told, too."""
    count = counted(len(packets), "message is", "messages are")
    logger.info("client %r: %s refused: %s", client_id, count, reason)
    return [
        Ack(
            PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC,
            [packet.packet_id],
            ReasonCode.QUOTA_EXCEEDED,
            reason,
        )
        for packet in packets
    ]


def slow_down(messages: Sequence[Message], services: Services, user: str, by: Slowed) -> None:
    """Take all of them, as lines cannot be refused one by one, and do not read from `by` while its
    user is ahead."""
    if (pace := services.quotas.pace_of(user)) is None:
        return
    now = services.clock.monotonic()
    pace.take(len(messages), sum([len(m.topic) + len(m.payload) for m in messages]), now)
    if (ahead_s := pace.ahead_s(now)) > 0:
        services.quotas.slowing.slow(by, ahead_s, now)
