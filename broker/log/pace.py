"""Pace: how much one commit may hold, so that nobody waits long for it.

What is in memory of a batch stands for the work of its commit. How long that takes is learned from
the commits themselves, as a straight line: what even an empty one takes, and so much for each byte.
Only the second counts. The first is the disk's sync, and in smaller batches it would only be paid
more often.
"""

from __future__ import annotations

COMMIT_S = 0.1
"""What QoS 0, and everything else, may each take of one commit, beside the sync."""
BATCH_BYTES_MIN = 1 << 20
"""A batch may always be so large: some 5,000 small messages, about 20 ms."""
BATCH_BYTES_FIRST = 4 << 20
LEARN_BYTES_MIN = 1 << 16
"""Commits of less say nothing."""
MEMORY = 0.8
"""What one more commit leaves of the weight of the earlier ones."""
FEW_MESSAGES = 64
TURNS_FOR_COMPANY = 3
"""After a commit, a batch smaller than FEW_MESSAGES waits this many turns of the loop: the
publishers just acknowledged are about to send more. Else the two halves of a small window follow
each other in commits of their own. `make bench`, qos1-w20: 1.5 times the messages a second."""
ALIKE = 0.01
"""Sizes of commits vary less than a tenth: no line can be seen in them."""


class Pace:
    def __init__(self, bytes_max: int) -> None:
        """`bytes_max`: more must never be in a batch."""
        self._bytes_max = bytes_max
        self._lines = {True: _Line(), False: _Line()}
        """By whether the commit was synced."""
        self.batch_bytes_max = min(bytes_max, BATCH_BYTES_FIRST)
        """What a batch may hold by what is known so far."""

    def learn(self, size: int, took_s: float, *, durable: bool) -> None:
        """A commit of `size` bytes in memory took so long; it was synced if `durable`."""
        line = self._lines[durable]
        line.add(size, took_s)
        if size < min(BATCH_BYTES_MIN, self.batch_bytes_max) // 2:
            return
        beside_sync_s = min(took_s, line.slope * size)
        if beside_sync_s > COMMIT_S:
            fitting = max(int(size * COMMIT_S / beside_sync_s), BATCH_BYTES_MIN)
            self.batch_bytes_max = min(self.batch_bytes_max, fitting)
        elif beside_sync_s < COMMIT_S / 2 and size >= self.batch_bytes_max // 2:
            self.batch_bytes_max = min(2 * self.batch_bytes_max, self._bytes_max)


class _Line:
    """Through points of which the newer weigh more: least squares."""

    def __init__(self) -> None:
        self.slope = 0.0
        self._start = 0.0
        """At x = 0."""
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def add(self, x: float, y: float) -> None:
        self._weight = self._weight * MEMORY + 1
        self._x = self._x * MEMORY + x
        self._y = self._y * MEMORY + y
        self._xx = self._xx * MEMORY + x * x
        self._xy = self._xy * MEMORY + x * y
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_x * mean_x
        if variance > ALIKE * mean_x * mean_x:
            self.slope = max(0.0, (self._xy / self._weight - mean_x * mean_y) / variance)
            self._start = max(0.0, mean_y - self.slope * mean_x)
        elif x:
            self.slope = max(0.0, (y - self._start) / x)
