"""Retaining: the rules of retention that a broker has, and what it tells about them.

What no `[[retention]]` of the settings matches is kept for 30 days, up to 10 GiB or half of the
file system. A log that an older program has made keeps everything that no rule was set for, and
each start says so.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Sequence

from broker.cache import Cache
from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import Operation
from broker.log.log import Log
from broker.log.upkeep.retention import Retention
from broker.message import rfc3339
from broker.registry.upkeep.keeping import Keeping, require_filters
from broker.registry.upkeep.trims import Trims
from broker.settings.retention import RetentionRule
from broker.topics import matches

DEFAULT_AGE_S = 30 * 86_400
DEFAULT_BYTES_MAX = 10 << 30
logger = logging.getLogger(__name__)


def rules_for(config: Config, file_system_bytes: int, *, keeps_all: bool) -> list[RetentionRule]:
    """The rules of the settings, and the one for what they do not match."""
    if keeps_all:
        return [*config.retention]
    most = min(DEFAULT_BYTES_MAX, file_system_bytes // 2)
    return [*config.retention, RetentionRule(None, age_s=DEFAULT_AGE_S, bytes=most)]


class Retaining:
    def __init__(
        self, config: Config, log: Log, delivery: Delivery, counters: Counters, clock: Clock
    ) -> None:
        """Raises ConfigError: a filter of the rules is none."""
        store = log.store
        self._log = log
        self._size = shutil.disk_usage(config.data_dir).total
        self._rules = rules_for(config, self._size, keeps_all=store.removing.keeps_all)
        self._limited = asyncio.Event()
        """Whether anything is ever removed."""
        self._keeping = Keeping(self._rules, store, delivery, counters, clock)
        self._retention = Retention(
            *(store, log.time, clock, self._keeping, self._commit),
            interval_s=config.retention_interval_s,
        )
        self.trims = Trims(store, self._retention, self._keeping, clock)
        self._left_out: Cache[str, bool] = Cache()
        self._hold_to(self._rules)

    async def run_forever(self) -> None:
        """Until cancelled. First say what is kept for ever."""
        if not self._limited.is_set() and self._log.store.removing.keeps_all:
            stats = await self._log.store.stats()
            logger.warning(
                "nothing is ever removed from this log of %s (%s messages), which an older"
                " pubsub has made: set [[retention]] for what may go",
                *(_size(stats.bytes_on_disk), f"{stats.messages:,}"),
            )
        await self._limited.wait()
        await self._retention.run_forever()

    def renewal(self, config: Config) -> Callable[[], None]:
        """Gets ready for other settings; call what it returns to have them. Messages go by them
        from the next pass on. Raises ConfigError: a filter is none."""
        rules = rules_for(config, self._size, keeps_all=self._log.store.removing.keeps_all)
        require_filters(rules)

        def renew() -> None:
            self._retention.interval_s = config.retention_interval_s
            if rules != self._rules:
                self._keeping.renew(rules)
                self._hold_to(rules)

        return renew

    def _hold_to(self, rules: list[RetentionRule]) -> None:
        self._rules = rules
        self._left_out.clear()
        self._log.qos0.leave_out(None if all(rule.log for rule in rules) else self._leaves_out)
        if any(rule.limits for rule in rules):
            self._limited.set()

    def _commit(self, operations: Sequence[Operation]) -> None:
        self._log.append([], durable=False, keep_if_full=False, operations=operations)

    def _leaves_out(self, topic: str) -> bool:
        """Whether QoS 0 messages of this topic are not logged."""
        left_out = self._left_out.get(topic)
        if left_out is None:
            found = (r for r in self._rules if r.filter is None or matches(r.filter, topic))
            rule = next(found, None)
            left_out = rule is not None and not rule.log
            self._left_out.keep(topic, left_out, len(topic))
        return left_out

    def values(self) -> dict[str, object]:
        """Under `$SYS`."""
        retention = self._retention
        removed = ("age", "count", "bytes", "unread", "by hand")
        return {
            "retention/messages": retention.kept.messages,
            "retention/bytes": retention.kept.bytes,
            **{f"retention/removed/{why}": retention.removed[why] for why in removed},
        }

    def status(self) -> dict[str, object]:
        """For people and monitoring."""
        retention = self._retention
        messages, size = retention.kept
        last_at = retention.last_pass_at
        return {
            "messages": messages,
            "bytes": size,
            "last_pass": None if last_at is None else rfc3339(last_at),
            "last_pass_s": round(retention.last_pass_s, 3),
            "removed": {**retention.removed},
            "removed_bytes": retention.bytes_removed,
            "damaged_segments": len(retention.damaged),
            "rules": {rule.filter or "all else": str(rule) for rule in self._rules},
        }


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
