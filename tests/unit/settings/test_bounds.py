"""Every number among the settings has bounds, and is refused outside them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast, get_type_hints

import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.settings.bounds import BOUNDS


def test_every_number_has_bounds() -> None:
    types = get_type_hints(Config)
    assert {name for name in types if types[name] in (int, float)} == set(BOUNDS)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_number_is_within_its_bounds(name: str) -> None:
    least, most = BOUNDS[name]
    for value in (least, most):
        assert getattr(Config.load(None, {name: value}), name) == value
    for value in (least - 1, most + 1, math.nan, math.inf):
        with pytest.raises(ConfigError, match=f"^{name} = .*: must be {least}..{most}$"):
            replace(Config(), **cast(Any, {name: value}))
