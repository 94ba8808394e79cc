"""KeepAlive: when a client counts as silent. [MQTT-3.1.2-22, MQTT3-3.1.2-24]

A client counts as silent after 1.5 times its Keep Alive without a whole packet. A part of a PUBLISH
counts as life too, for at most ten times the Keep Alive: a large message over a slow line takes
longer than the Keep Alive, and its client can send nothing else meanwhile. A client that is cut off
in the middle would send the same message again and never succeed. Time in which the broker does not
read does not count.
"""

from __future__ import annotations

import math

from broker.message import Monotonic

INTERVALS = 1.5
PUBLISH_INTERVALS = 10
"""Keep Alives after which one PUBLISH must be whole, however often a byte of it arrives."""


class KeepAlive:
    """`interval_s` is the Keep Alive, 0 for none; `last_packet_at` the last sign of life."""

    __slots__ = ("_publish_began_at", "_publish_grew_at", "interval_s", "last_packet_at")

    def __init__(self, now: Monotonic) -> None:
        self.interval_s = 0
        self.last_packet_at = now
        self._publish_began_at = self._publish_grew_at = Monotonic(-math.inf)

    def read_again(self, now: Monotonic) -> None:
        """Reading goes on after a pause: the silence begins now."""
        self.last_packet_at = now

    def publish_grew(self, now: Monotonic) -> None:
        """A part of a PUBLISH arrived, not its end."""
        if self._publish_began_at < self.last_packet_at:
            self._publish_began_at = now
        self._publish_grew_at = now

    def deadline(self) -> Monotonic | None:
        """When the client counts as silent, unless it is heard before. None: never."""
        interval_s = self.interval_s
        if not interval_s:
            return None
        deadline = self.last_packet_at + INTERVALS * interval_s
        if self._publish_began_at >= self.last_packet_at:
            growing = self._publish_grew_at + INTERVALS * interval_s
            deadline = max(
                deadline, min(growing, self._publish_began_at + PUBLISH_INTERVALS * interval_s)
            )
        return Monotonic(deadline)
