from __future__ import annotations

from dataclasses import fields
from typing import Any

from broker.config import Config
from broker.mqtt.limits import Limits


def test_each_limit_is_the_setting_of_its_name() -> None:
    values: dict[str, Any] = {
        field.name: number for number, field in enumerate(fields(Limits), 1000)
    }
    limits = Limits.of(Config(**values))
    assert {name: getattr(limits, name) for name in values} == values
