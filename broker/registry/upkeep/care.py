"""Care: what looks after the log in the background: damage, expiry, retention, the disk."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.log.log import Log
from broker.log.upkeep.disk_space import DiskSpace
from broker.log.upkeep.expiry import forget_expired_forever
from broker.log.upkeep.scrub import Scrub
from broker.registry.upkeep.retaining import Retaining


class Care:
    def __init__(
        self, config: Config, log: Log, delivery: Delivery, counters: Counters, clock: Clock
    ) -> None:
        """Raises ConfigError."""
        store = log.store
        self.retaining = Retaining(config, log, delivery, counters, clock)
        self._scrub = Scrub(store, clock, bytes_per_s=config.scrub_bytes_per_s)
        self._space = DiskSpace(config.data_dir, config.disk_free_min, store, log.outage, clock)
        self._work: list[Callable[[], Coroutine[None, None, None]]] = [
            self.retaining.run_forever,
            lambda: forget_expired_forever(store, log.time, clock),
        ]
        if config.scrub_bytes_per_s:
            self._work.append(self._scrub.run_forever)
        self._work.append(self._space.watch_forever)

    def begin(self, spawn: Callable[[Coroutine[None, None, None]], None]) -> None:
        """Each runs until it is cancelled."""
        for work in self._work:
            spawn(work())

    async def renewal(self, config: Config) -> Callable[[], None]:
        """Gets ready for other settings; call what it returns to have them. Raises ConfigError."""
        retain = self.retaining.renewal(config)

        def renew() -> None:
            retain()
            self._space.most = config.disk_free_min

        return renew

    def status(self) -> dict[str, object]:
        scrub = self._scrub
        return {
            "retention": self.retaining.status(),
            "disk": self._space.status(),
            "scrub": {"offset": scrub.offset, "rounds": scrub.rounds},
        }
