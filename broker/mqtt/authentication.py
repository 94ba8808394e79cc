"""Enhanced authentication (section 4.12 of MQTT 5): the face of a method, and its use on one
connection. The broker's own is SCRAM-SHA-256 (`security.scram`); a program that runs the broker in
its process may give `Server` other `methods`.

CONNECT names the method and may bring the first data. AUTH packets go to and fro until the exchange
is done; only then is there a `Connect` event. A connected client may authenticate again by the same
method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from broker.errors import BadAuthenticationMethod, NotAuthorized, ProofFailed, ProtocolViolation
from broker.mqtt.packets import Auth, Connect, Disconnect, Properties
from broker.mqtt.properties import Property
from broker.mqtt.reasons import ReasonCode


class Exchange(Protocol):
    """One run of a method for one client. Pure: it waits for nobody."""

    @property
    def user(self) -> str | None:
        """Who it is, once it is done; None: the method does not say."""
        ...

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        """Take the client's data (empty if it sent none); what to answer, and whether it is done.

        Raises NotAuthorized: the client is not who it says. ProofFailed: the same, but where that
        ends the exchange of a CONNECT, the Connect event carries it.
        """
        ...


Methods = Mapping[str, Callable[[], Exchange]]
"""By the name that CONNECT gives as Authentication Method."""


class Authentication:
    """The authentication of one client whose CONNECT named a method.

    It keeps the CONNECT until the client has shown who it is. `begin` and `receive` return the AUTH
    to send to the client, or the CONNECT when the client may be let in.
    """

    __slots__ = ("_exchange", "_held", "_last_data", "_method", "_new_exchange", "_user")

    def __init__(self, connect: Connect, methods: Methods) -> None:
        """Raises BadAuthenticationMethod."""
        assert connect.authentication_method is not None
        self._method = connect.authentication_method
        if self._method not in methods:  # [MQTT-4.12.0-1]
            raise BadAuthenticationMethod(
                f"there is no authentication method {self._method!r} here"
            )
        self._new_exchange = methods[self._method]
        self._exchange: Exchange | None = None
        self._held: Connect | None = connect
        self._user: str | None = None
        self._last_data: bytes | None = None
        """The last data of the method in the exchange that CONNECT began."""

    @property
    def pending(self) -> bool:
        """Whether the client must still show who it is. Until then it is not connected."""
        return self._held is not None

    def begin(self) -> Auth | Connect:
        """Begin the exchange with the data in CONNECT. Raises NotAuthorized."""
        assert self._held is not None
        return self._begin(self._held.authentication_data)

    def receive(self, auth: Auth, *, accepted: bool) -> Auth | Connect:
        """The client goes on, or, once it is `accepted`, begins again.

        Raises NotAuthorized, and ProtocolViolation for an AUTH that does not fit.
        """
        if auth.method != self._method:  # [MQTT-4.12.0-5, MQTT-4.12.1-1]
            raise ProtocolViolation("AUTH has another Authentication Method than CONNECT")
        if auth.reason_code == ReasonCode.REAUTHENTICATE and accepted:
            return self._begin(auth.data)
        if auth.reason_code == ReasonCode.CONTINUE_AUTHENTICATION and self._exchange:
            return self._step(self._exchange, auth.data)
        raise ProtocolViolation("AUTH does not fit: nothing was asked of the client")

    def too_early(self, received: Sequence[object]) -> ProtocolViolation | None:
        """While the authentication is `pending`, the client may send only AUTH and DISCONNECT.
        [MQTT-3.1.2-30] The error if `received` has another packet, else None."""
        if self.pending and any(not isinstance(packet, Auth | Disconnect) for packet in received):
            return ProtocolViolation("only AUTH may follow until the client is authenticated")
        return None

    def check(self, received: Sequence[object]) -> None:
        """Raises the error of `too_early`."""
        if (error := self.too_early(received)) is not None:
            raise error

    def connack_properties(self) -> Properties:
        """Authentication Method and Data of the CONNACK. [MQTT-4.12.0-4, MQTT-4.12.0-5]"""
        properties: Properties = {Property.AUTHENTICATION_METHOD: self._method}
        if self._last_data is not None:
            properties[Property.AUTHENTICATION_DATA] = self._last_data
        return properties

    def _begin(self, data: bytes | None) -> Auth | Connect:
        self._exchange = self._new_exchange()
        return self._step(self._exchange, data)

    def _step(self, exchange: Exchange, data: bytes | None) -> Auth | Connect:
        """Ask the client for more [MQTT-4.12.0-2, 3], or let it in."""
        try:
            answer, done = exchange.step(data or b"")
        except ProofFailed as failure:
            if self._held is None:
                raise
            refused, self._held = self._held, None
            refused.failed_proof_of = failure.user
            return refused
        if not done:
            return Auth(ReasonCode.CONTINUE_AUTHENTICATION, self._method, answer)
        self._exchange = None
        connect, self._held = self._held, None
        if connect is None:
            if exchange.user != self._user:
                raise NotAuthorized("AUTH is of another user than CONNECT")
            return Auth(ReasonCode.SUCCESS, self._method, answer)
        self._last_data = answer
        connect.authenticated_user = self._user = exchange.user
        return connect
