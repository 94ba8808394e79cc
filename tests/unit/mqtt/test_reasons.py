from __future__ import annotations

import pytest

from broker.errors import PeerError
from broker.mqtt.reasons import (
    ReasonCode,
    connack_refusal,
    connect_return_code,
    disconnect_reason,
)


def test_every_error_of_a_peer_has_a_code_that_mqtt_knows() -> None:
    errors: list[type[PeerError]] = [PeerError, *PeerError.__subclasses__()]
    assert {error.reason_code for error in errors} <= set(ReasonCode)


@pytest.mark.parametrize(
    ("code", "return_code"),
    [(0x00, 0), (0x84, 1), (0x85, 2), (0x88, 3), (0x86, 4), (0x87, 5), (0x81, None), (0x8D, None)],
)
def test_return_codes_of_3_1_1(code: int, return_code: int | None) -> None:
    """Table 3.1 of MQTT 3.1.1."""
    assert connect_return_code(code) == return_code


@pytest.mark.parametrize(
    ("code", "sent"), [(0x81, 0x81), (0x9F, 0x9F), (0x94, 0x82), (0x8B, 0x88), (0x8E, 0x80)]
)
def test_connack_says_what_it_may(code: int, sent: int) -> None:
    assert connack_refusal(code) == sent


@pytest.mark.parametrize(("code", "sent"), [(0x8E, 0x8E), (0x00, 0x00), (0x85, 0x80), (0x91, 0x80)])
def test_disconnect_says_what_it_may(code: int, sent: int) -> None:
    assert disconnect_reason(code) == sent
