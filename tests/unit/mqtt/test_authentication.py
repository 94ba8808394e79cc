"""One exchange, step by step. What the bytes look like is in `tests/wire`."""

from __future__ import annotations

import pytest

from broker.errors import BadAuthenticationMethod, NotAuthorized, ProofFailed, ProtocolViolation
from broker.mqtt.authentication import Authentication, Methods
from broker.mqtt.packets import MQTT_5, Auth, Connect, Disconnect, Pingreq, Publish
from broker.mqtt.properties import Property
from broker.mqtt.reasons import ReasonCode

PUBLISH = Publish("t", b"", 0, False, False, 0)


class Count:
    """Lets a client in whose data has grown to three bytes, and none that sends a `x`."""

    user = None

    def __init__(self) -> None:
        self.came = b""

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        if b"x" in data:
            raise NotAuthorized("x")
        self.came += data
        return self.came or None, len(self.came) >= 3


METHODS: Methods = {"count": Count}


def connect(data: bytes | None, method: str = "count") -> Connect:
    packet = Connect(MQTT_5, "c", True, 60)
    packet.authentication_method, packet.authentication_data = method, data
    return packet


def go_on(data: bytes | None, method: str = "count") -> Auth:
    return Auth(ReasonCode.CONTINUE_AUTHENTICATION, method, data)


def begin_again(data: bytes | None) -> Auth:
    return Auth(ReasonCode.REAUTHENTICATE, "count", data)


@pytest.fixture
def authentication() -> Authentication:
    """Whose client has sent nothing yet but the name of the method."""
    return Authentication(connect(None), METHODS)


def test_a_method_that_is_not_there_is_refused() -> None:
    """[MQTT-4.12.0-1]"""
    with pytest.raises(BadAuthenticationMethod):
        Authentication(connect(None, "other"), METHODS)


def test_a_client_is_let_in_at_once_if_connect_has_all() -> None:
    packet = connect(b"abc")
    authentication = Authentication(packet, METHODS)
    assert authentication.pending
    assert authentication.begin() is packet
    assert not authentication.pending
    assert authentication.connack_properties() == {
        Property.AUTHENTICATION_METHOD: "count",
        Property.AUTHENTICATION_DATA: b"abc",
    }


def test_a_client_is_asked_until_the_exchange_is_done(authentication: Authentication) -> None:
    """[MQTT-4.12.0-2, 3]"""
    assert authentication.begin() == go_on(None)
    assert authentication.receive(go_on(b"ab"), accepted=False) == go_on(b"ab")
    assert authentication.pending
    assert authentication.receive(go_on(b"c"), accepted=False) == connect(None)
    assert not authentication.pending


def test_an_exchange_may_end_without_data() -> None:
    class Trusting:
        user = None

        def step(self, data: bytes) -> tuple[bytes | None, bool]:
            return None, True

    authentication = Authentication(connect(b"abc"), {"count": Trusting})
    authentication.begin()
    assert authentication.connack_properties() == {Property.AUTHENTICATION_METHOD: "count"}


def test_a_connected_client_may_authenticate_again(authentication: Authentication) -> None:
    """[MQTT-4.12.1-1] With an exchange of its own: what came before does not count."""
    authentication.begin()
    authentication.receive(go_on(b"abc"), accepted=False)
    assert authentication.receive(begin_again(b"d"), accepted=True) == go_on(b"d")
    assert not authentication.pending
    done = authentication.receive(go_on(b"ef"), accepted=True)
    assert done == Auth(ReasonCode.SUCCESS, "count", b"def")
    data = authentication.connack_properties()[Property.AUTHENTICATION_DATA]
    assert data == b"abc", "the data of the exchange before CONNACK"


@pytest.mark.parametrize(
    ("auth", "accepted"),
    [
        (go_on(b"a", "other"), False),
        (begin_again(b"a"), False),
        (Auth(ReasonCode.SUCCESS, "count", b"a"), False),
        (Auth(ReasonCode.SUCCESS, "count", b"a"), True),
    ],
)
def test_auth_that_does_not_fit(authentication: Authentication, auth: Auth, accepted: bool) -> None:
    authentication.begin()
    with pytest.raises(ProtocolViolation):
        authentication.receive(auth, accepted=accepted)


def test_nothing_was_asked_of_a_client_that_is_in(authentication: Authentication) -> None:
    authentication.begin()
    authentication.receive(go_on(b"abc"), accepted=False)
    with pytest.raises(ProtocolViolation):
        authentication.receive(go_on(b"d"), accepted=True)


def test_who_is_refused_is_not_in(authentication: Authentication) -> None:
    authentication.begin()
    with pytest.raises(NotAuthorized):
        authentication.receive(go_on(b"x"), accepted=False)
    assert authentication.pending


def test_only_auth_and_disconnect_may_come_before(authentication: Authentication) -> None:
    """[MQTT-3.1.2-30]"""
    authentication.check([go_on(b"a"), Disconnect()])
    for packet in (PUBLISH, Pingreq()):
        assert authentication.too_early([go_on(b"a"), packet]) is not None
        with pytest.raises(ProtocolViolation):
            authentication.check([packet])
    authentication.begin()
    authentication.receive(go_on(b"abc"), accepted=False)
    authentication.check([PUBLISH, Pingreq()])


class Named(Count):
    """Its client is the user that its data ends with, once it has three bytes."""

    @property
    def user(self) -> str | None:  # type: ignore[override]
        return self.came[-1:].decode()

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        if data == b"???":
            raise ProofFailed("c")
        return super().step(data)


def test_who_authenticates_again_is_the_same_user_or_is_refused() -> None:
    authentication = Authentication(connect(b"aac"), {"count": Named})
    packet = authentication.begin()
    assert isinstance(packet, Connect)
    assert packet.authenticated_user == "c"
    assert authentication.receive(begin_again(b"bbc"), accepted=True) == Auth(
        ReasonCode.SUCCESS, "count", b"bbc"
    )
    with pytest.raises(NotAuthorized, match="another user"):
        authentication.receive(begin_again(b"aaa"), accepted=True)


def test_a_wrong_proof_is_told_after_connect_and_at_once_later() -> None:
    authentication = Authentication(connect(b"???"), {"count": Named})
    packet = authentication.begin()
    assert isinstance(packet, Connect)
    assert (packet.authenticated_user, packet.failed_proof_of) == (None, "c")
    assert not authentication.pending
    again = Authentication(connect(b"abc"), {"count": Named})
    again.begin()
    with pytest.raises(ProofFailed):
        again.receive(begin_again(b"???"), accepted=True)
