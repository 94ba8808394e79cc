"""Connecting: from a CONNECT packet to the CONNACK that grants or refuses it."""

from __future__ import annotations

import uuid

from broker.clients.gate import Gate
from broker.clients.services import Services
from broker.clients.session_report import report
from broker.config import Config
from broker.documents import WillDocument
from broker.errors import NotAuthorized, QuotaExceeded, StoreError, StoreFull, UseAnotherServer
from broker.mqtt.packets import MQTT_5, Connack, Connect, Properties
from broker.mqtt.properties import Property
from broker.mqtt.reasons import ReasonCode
from broker.registry.faces import Owner
from broker.security.rights import Rights
from broker.session.session import Session


def identifier(packet: Connect) -> str:
    """The client identifier, or one that nobody else has. [MQTT-3.1.3-6]"""
    return packet.client_id or f"auto-{uuid.uuid4().hex}"


async def open_session(
    services: Services, packet: Connect, client_id: str, owner: Owner, gate: Gate
) -> tuple[Session, bool]:
    """The session of `client_id`, now the owner's, and whether it was there before.

    The will is committed with the session. Raises QuotaExceeded, StoreError, NotAuthorized: see
    `refusal`.
    """
    rights = gate.rights(client_id)
    if packet.version == MQTT_5 and client_id not in services.sessions.owners:
        services.references.refer_if_crowded()
    if packet.will is not None and not rights.may_publish(packet.will.topic):
        raise NotAuthorized("the right to publish its Will is missing")
    return await services.sessions.open(
        client_id,
        owner,
        clean_start=packet.clean_start,
        session_expiry_s=session_expiry_s(packet, services.config),
        receive_maximum=packet.receive_maximum,
        will=_will(packet, rights),
        now=services.clock.now(),
        hears_of_gaps=packet.version == MQTT_5,
        rights=rights,
        user=gate.user,
    )


async def acceptance(
    services: Services, packet: Connect, session: Session, *, present: bool
) -> Connack:
    """The CONNACK that accepts. Raises StoreError: a question of its cannot be answered."""
    expiry_s = session_expiry_s(packet, services.config)
    properties: Properties = {}
    if not packet.client_id:  # [MQTT-3.2.2-16]
        properties[Property.ASSIGNED_CLIENT_IDENTIFIER] = session.client_id
    if packet.session_expiry_s not in (None, expiry_s):
        properties[Property.SESSION_EXPIRY_INTERVAL] = expiry_s
    properties |= _properties_asked_for(packet, services.config)
    if (most := services.quotas.of(session.tally.user).packet_bytes) is not None:
        properties[Property.MAXIMUM_PACKET_SIZE] = most
    if present and packet.user_properties:
        properties[Property.USER_PROPERTY] = await report(packet, session, services.log)
    return Connack(present, ReasonCode.SUCCESS, properties)


def terms(packet: Connect, connack: Connack) -> str:
    """For diagnostics: what the client asked for, and whether it had been here before."""
    protocol = "MQTT 5" if packet.version == MQTT_5 else "MQTT 3.1.1"
    session = "session resumed" if connack.session_present else "new session"
    keep_alive_s = connack.properties.get(Property.SERVER_KEEP_ALIVE, packet.keep_alive_s)
    return f"{protocol}, {session}, keep alive {keep_alive_s} s"


Refusal = QuotaExceeded | NotAuthorized | StoreError


def refusal(error: Refusal) -> ReasonCode:
    """Reason Code: who it is may not (0x86, 0x87), the broker is full (0x97), and another is not
    (0x9C), or it cannot serve anybody now (0x88)."""
    if isinstance(error, NotAuthorized | UseAnotherServer):
        return ReasonCode(error.reason_code)
    full = isinstance(error, QuotaExceeded | StoreFull)
    return ReasonCode.QUOTA_EXCEEDED if full else ReasonCode.SERVER_UNAVAILABLE


def session_expiry_s(packet: Connect, config: Config) -> int:
    """How long the session outlives the connection. [MQTT-3.1.2-23, MQTT3-3.1.2-4]"""
    if packet.version == MQTT_5:
        return min(packet.session_expiry_s or 0, config.session_expiry_max_s)
    return 0 if packet.clean_start else config.session_expiry_default_s


def _properties_asked_for(packet: Connect, config: Config) -> Properties:
    """Response Information and Server Keep Alive. [MQTT-3.1.2-28, MQTT-3.2.2-21]

    A 3.1.1 client cannot be told another Keep Alive. Held to one that it does not know, it would be
    cut off; so it keeps its own.
    """
    properties: Properties = {}
    if packet.request_response_information and config.response_information:
        properties[Property.RESPONSE_INFORMATION] = config.response_information
    longest_s = config.keep_alive_max_s
    if packet.version == MQTT_5 and longest_s and not 0 < packet.keep_alive_s <= longest_s:
        properties[Property.SERVER_KEEP_ALIVE] = longest_s
    return properties


def _will(packet: Connect, rights: Rights) -> WillDocument | None:
    will = packet.will
    if will is None:
        return None
    user, roles, client_id = rights.author
    return WillDocument(
        client_id,
        will.topic,
        will.payload,
        will.qos,
        will.retain,
        will.properties,
        will.message_expiry_s,
        will.delay_s,
        user,
        roles,
    )
