"""Packets: what is secret in them is not in their `repr`, which may come into a traceback."""

from __future__ import annotations

import pytest

from broker.mqtt.packets import MQTT_5, Auth, Connect, Publish, Will

SECRET = b"secret"


@pytest.mark.parametrize(
    "packet",
    [
        Connect(
            MQTT_5,
            "me",
            True,
            0,
            Will("t", SECRET, 0, retain=False),
            "ann",
            SECRET,
            authentication_data=SECRET,
        ),
        Publish("t", SECRET, 0, False, False, 0),
        Auth(0, "SCRAM", SECRET),
    ],
)
def test_a_secret_is_not_shown(packet: object) -> None:
    assert "secret" not in repr(packet)
