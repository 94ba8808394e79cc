"""The log's own time: two clocks that go on from run to run of the broker, and that nobody can set.

The wall clock cannot be believed: a board without a battery boots in 1970, and anybody may set it.
So only monotonic clocks move these two, and what outlives a run has its deadlines on one of them:

- *Served* time stands still while no broker runs, and while the machine is suspended: no client can
  come back then. Sessions, groups and wills end by it. In doubt they are kept. [MQTT-4.1.0-2]
- *Aged* time also runs while the machine is suspended. Over a restart it goes on by what the wall
  clock did since the last note, but never back. Messages expire by it: in doubt nobody wants
  yesterday's "open the door". [MQTT-3.3.2-5]

A new log begins both with the wall clock's time, so that they read like it. A note of them is part
of a commit that happens anyway, once a second at most, and of one of its own once a minute: a crash
makes the log forget no more of served time than that.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.clock import NEVER, US, Clock
from broker.documents import NEVER_US, Operation, Put, TimeDocument
from broker.message import AgedUs, Monotonic, ServedUs, WallUs
from broker.store import Store

NOTE_INTERVAL_S = 1
NOTE_AHEAD_S = 2
"""More, as the timer is late when the loop is busy."""
IDLE_NOTE_INTERVAL_S = 60.0
_KEY = "log"


class LogTime:
    """See the module. A commit of the log asks for a `note` when it is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        now = clock.now()
        self._served_zero_us = now.wall_us - round(now.monotonic * US)
        """What served time was when the monotonic clock was 0, and ..."""
        self._aged_zero_us = now.wall_us - clock.elapsed_us()
        """... what aged time was when the clock that counts suspension too was 0."""
        self.note_due = False
        """Whether the next commit is to store a `note`. Not before `resume` has read the last."""
        self._over = False
        self.noted_us = WallUs(0)
        """When the run before was last known to be alive, as the wall clock had it; 0: never."""

    async def resume(self, store: Store) -> None:
        """Go on where the run before ended, and note the time from now on. Raises StoreError."""
        noted = await store.get(TimeDocument, (_KEY,))
        if noted is not None:
            now, self.noted_us = self._clock.now(), noted.wall_us
            down_us = max(0, now.wall_us - noted.wall_us)
            self._served_zero_us = noted.served_us - round(now.monotonic * US)
            self._aged_zero_us = noted.aged_us + down_us - self._clock.elapsed_us()
        self.note_due = True

    def aged_us(self) -> int:
        """Aged time now. (`AgedUs(...)` would be one more call for each batch that is sent.)"""
        return self._aged_zero_us + self._clock.elapsed_us()

    def expires_at_us(self, published_at_us: int, expiry_s: int) -> int:
        """`Message.expires_at_us` of a message that is published now with this interval."""
        return self.aged_us() + expiry_s * US if expiry_s else published_at_us

    def served_at(self, at: Monotonic) -> ServedUs:
        """What served time will be at `at`."""
        if at == NEVER:
            return NEVER_US
        return ServedUs(self._served_zero_us + round(at * US))

    def monotonic_at(self, served_us: ServedUs) -> Monotonic:
        """When served time will be `served_us`, if this run lasts so long."""
        if served_us >= NEVER_US:
            return NEVER
        return Monotonic((served_us - self._served_zero_us) / US)

    def end(self) -> None:
        """The run ends with the next commit: note the time as it is then."""
        self._over = self.note_due = True

    def note(self) -> Operation:
        """What the commit that begins is to store of it."""
        now = self._clock.now()
        self.note_due = False
        self._clock.call_later(NOTE_INTERVAL_S, self._note_again)
        # This note has to do for the commits until the next: nothing that they store may be younger
        # than aged time at the next start. At a clean stop there are no more.
        ahead_us = 0 if self._over else NOTE_AHEAD_S * US
        aged_us, wall_us = self.aged_us() + ahead_us, now.wall_us + ahead_us
        served_us = self.served_at(now.monotonic)
        return Put(TimeDocument(_KEY, served_us, AgedUs(aged_us), WallUs(wall_us)))

    async def note_forever(self, append: Callable[..., None]) -> None:
        """Note it also while there is nothing to commit, with `Log.append`."""
        while True:
            await self._clock.sleep(IDLE_NOTE_INTERVAL_S)
            append([], durable=False, keep_if_full=False)

    def not_noted(self) -> None:
        """The commit with the note failed."""
        self.note_due = True

    def _note_again(self) -> None:
        self.note_due = True
