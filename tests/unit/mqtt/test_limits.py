from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from broker.config import Config
from broker.mqtt.fields import PACKET_BYTES_MAX
from broker.mqtt.limits import Limits
from broker.mqtt.packets import RECEIVE_MAXIMUM_DEFAULT
from broker.mqtt.properties import Property


def test_each_limit_is_the_setting_of_its_name() -> None:
    values: dict[str, Any] = {
        field.name: number for number, field in enumerate(fields(Limits), 1000)
    }
    limits = Limits.of(Config(**values))
    assert {name: getattr(limits, name) for name in values} == values


@pytest.mark.parametrize(
    ("name", "value", "property"),
    [
        ("receive_max", 65_534, Property.RECEIVE_MAXIMUM),
        ("packet_bytes_max", PACKET_BYTES_MAX - 1, Property.MAXIMUM_PACKET_SIZE),
        ("topic_alias_max", 1, Property.TOPIC_ALIAS_MAXIMUM),
    ],
)
def test_what_mqtt_takes_for_granted_is_not_announced(
    name: str, value: int, property: Property
) -> None:
    unlimited = replace(
        Limits.of(Config()),
        receive_max=RECEIVE_MAXIMUM_DEFAULT,
        packet_bytes_max=PACKET_BYTES_MAX,
        topic_alias_max=0,
    )
    assert unlimited.announced() == {}
    limited: dict[str, Any] = {name: value}
    assert replace(unlimited, **limited).announced() == {property: value}
