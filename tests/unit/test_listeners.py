from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from broker.errors import ConfigError
from broker.listeners import Listener


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"port": 1, "unix_socket": Path("s")},
        {"port": 1, "protocols": ()},
        {"port": 1, "protocols": ("mqtt", "http")},
    ],
)
def test_what_cannot_be_listened_on_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^listeners"):
        Listener(**values)
