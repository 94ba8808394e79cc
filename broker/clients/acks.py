"""Acks: what answers the QoS 1 and 2 messages of one read, in as few packets of the encoder as
their answers allow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

from broker.message import Message
from broker.mqtt.packets import Ack, PacketType
from broker.mqtt.reasons import ReasonCode

NO_RECEIPTS: Mapping[int, Message] = {}


def acks(
    kind: PacketType,
    packet_ids: Sequence[int],
    code: int,
    receipts: Mapping[int, Message] = NO_RECEIPTS,
    unwanted: Collection[int] = (),
) -> list[Ack]:
    """One for all that have the same answer; one each where they have offsets."""
    if not packet_ids:
        return []
    if unwanted:
        found: list[Ack] = []
        for nobody, run in groupby(packet_ids, unwanted.__contains__):
            answer = ReasonCode.NO_MATCHING_SUBSCRIBERS if nobody else code
            found += acks(kind, [*run], answer, receipts)
        return found
    if not receipts:
        return [Ack(kind, packet_ids, code)]
    found = [Ack(kind, [packet_id], code) for packet_id in packet_ids]
    for ack, packet_id in zip(found, packet_ids, strict=True):
        if packet_id in receipts:
            ack.user_properties = [("offset", str(receipts[packet_id].offset))]
    return found


def on_topics(
    topics: Collection[str],
    messages: Sequence[Message],
    pubacks: Sequence[int],
    received: Sequence[int],
) -> set[int]:
    """The Packet Identifiers of those messages that are on one of these topics. `pubacks` are of
    the messages of QoS 1, `received` of those of QoS 2."""
    return {
        packet_id
        for qos, packet_ids in ((1, pubacks), (2, received))
        for packet_id, message in zip(
            packet_ids, [m for m in messages if m.qos == qos], strict=True
        )
        if message.topic in topics
    }
