"""A replay as fast as it was: each message waits until as much time has passed as between it and
the first one when they were published, or a tenth of that with `--speed 10x`.

What has come and is not due is kept here, so that the connection can be waited on meanwhile.
"""

from __future__ import annotations

import re
from collections import deque
from datetime import datetime

from paho.mqtt.client import MQTTMessage

from cli.messages.format import metadata

HELD_MAX = 2000
"""Beyond, nothing more is read from the broker. (What comes by QoS 0 has no window.)"""
_SPEED = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)x?", re.ASCII)


def factor(text: str) -> float | None:
    """How many times as fast: 10 for `10x`. None: it is no speed."""
    found = _SPEED.fullmatch(text)
    return float(found[1]) or None if found else None


class Pace:
    def __init__(self, speed: float) -> None:
        self.held: deque[MQTTMessage] = deque()
        self._speed = speed
        self._began: tuple[float, float] | None = None
        """Where our clock and that of the publication were at the first message, in seconds."""

    @property
    def full(self) -> bool:
        return len(self.held) >= HELD_MAX

    def left_s(self, now: float) -> float | None:
        """Until the next message is due; None: there is none. `now` is monotonic, in seconds."""
        if not self.held:
            return None
        published = metadata(self.held[0]).get("published_at")
        if published is None:
            return 0.0
        at = datetime.fromisoformat(str(published)).timestamp()
        if self._began is None:
            self._began = now, at
        began, first = self._began
        return max(0.0, began + (at - first) / self._speed - now)
