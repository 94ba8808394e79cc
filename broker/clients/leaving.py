"""Leaving: how one client leaves its session, and whether its will goes out for that."""

from __future__ import annotations

from contextlib import ExitStack

from broker.clients.services import Services
from broker.mqtt.packets import Disconnect
from broker.mqtt.reasons import ReasonCode
from broker.registry.faces import Owner
from broker.session.session import Session


class Leaving:
    __slots__ = ("_services", "_will_withdrawn", "why")

    def __init__(self, services: Services) -> None:
        self._services = services
        self._will_withdrawn = False
        self.why = "the connection was lost"
        """Why the connection ended, for diagnostics; "": another line tells it."""

    def said(self, packet: Disconnect, session: Session | None) -> None:
        """The client takes its leave; before it is authenticated, of no session.
        [MQTT-3.14.4-3, MQTT-3.1.2-10]"""
        if session is not None and packet.session_expiry_s is not None and session.durable:
            longest_s = self._services.config.session_expiry_max_s
            session.set_expiry(min(packet.session_expiry_s, longest_s))
        self._will_withdrawn = packet.reason_code == ReasonCode.SUCCESS
        code = f" with Reason Code 0x{packet.reason_code:02X}" if packet.reason_code else ""
        self.why = f"it sent DISCONNECT{code}"

    def let_go(self, session: Session, client: Owner) -> None:
        """The client has left its session."""
        services, now = self._services, self._services.clock.now()
        wills, client_id = services.wills, session.client_id
        with ExitStack() as leaving:  # Whatever one of these raises, the others are called.
            leaving.callback(services.sessions.close, session, client, now)
            leaving.callback(services.groups.detach, session, lost=not self._will_withdrawn)
            if self._will_withdrawn:
                leaving.callback(wills.withdrawn, client_id)
            else:
                expiry_s = session.session_expiry_s
                leaving.callback(wills.client_lost, client_id, session_expiry_s=expiry_s, now=now)
