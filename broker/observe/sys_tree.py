"""`$SYS/broker/...`: what the broker tells about itself, under Mosquitto's names; and what it knows
of others beside it, `$SYS/brokers/...`.

- The values are messages, but not in the log: the log of a quiet broker would be full of them. So
  they have no offset, nobody can replay or query them, and an absent subscriber misses them.
- Every interval the values that changed go to the subscribers, at QoS 0. A new subscription gets
  all values that match, as retained messages.
- Only the broker publishes here: a client's PUBLISH is refused (`topics.refuse_reserved`). Filters
  that begin with a wildcard do not match. [MQTT-4.7.2-1]

Some names differ from Mosquitto's in their meaning. `store/messages/...` is the whole log and all
its bytes on the disk. `heap/...` is the resident memory of the process; only some systems, like
Linux, tell `heap/current`. `subscriptions/count` counts the subscriptions of connected clients.
There is no `messages/inflight`: every session would have to be asked.
"""

from __future__ import annotations

import contextlib
import logging
import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from broker import __version__
from broker.clock import Clock, Instant
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import SubscriptionDocument
from broker.errors import StoreError
from broker.log.log import Log
from broker.message import Message, Monotonic, Outgoing
from broker.registry.groups.groups import Groups
from broker.registry.sessions import Sessions
from broker.session.grants import merge_grants
from broker.session.session import Session
from broker.store import StoreStats
from broker.topics import SYS, matches

logger = logging.getLogger(__name__)

PREFIX = f"{SYS}/broker/"
LOAD_MINUTES = (1, 5, 15)


class SysTree:
    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        sessions: Sessions,
        groups: Groups,
        counters: Counters,
        now: Monotonic,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._sessions = sessions
        self._groups = groups
        self._counters = counters
        self._started_at = self._published_at = now
        self._connected_most = 0
        self._loads: dict[str, Load] = {}
        self.more: list[Callable[[], Mapping[str, object]]] = []
        """What others tell, by name."""
        self.beside: list[Callable[[], Mapping[str, object]]] = []
        """The same, by names that are below `$SYS`."""
        self._messages: dict[str, Message] = {}
        """By topic, as last published."""

    async def publish_forever(self, clock: Clock, interval_s: float) -> None:
        """Until cancelled. After an error it tries again an interval later."""
        while True:
            try:
                await self.publish(clock.now())
            except StoreError as error:
                logger.warning("%s is not told: %s", SYS, error)
            except Exception as error:
                logger.critical("%s is not told", SYS, exc_info=error)
            await clock.sleep(interval_s)

    async def publish(self, now: Instant) -> None:
        """Send the subscribers the values that changed since the last call."""
        stats = await self._log.store.stats()
        changed: list[Message] = []
        values = {PREFIX + name: v for name, v in self._values(now.monotonic, stats).items()}
        for tell in self.beside:
            values |= {f"{SYS}/{name}": value for name, value in tell().items()}
        for topic, value in values.items():
            payload = str(value).encode()
            last = self._messages.get(topic)
            if last is None or last.payload != payload:
                message = Message(topic, payload, 0, True, SYS, now.wall_us)
                self._messages[topic] = message
                changed.append(message)
        self._published_at = now.monotonic
        self._delivery.offer_beside(changed)

    def matching(
        self, subscriptions: Sequence[SubscriptionDocument], session: Session
    ) -> list[Outgoing]:
        """The values that these subscriptions of one SUBSCRIBE get, as retained, as far as they may
        be read. [MQTT-3.3.1-9]"""
        rights = session.grants.rights
        ours = [s for s in subscriptions if s.filter.startswith(f"{SYS}/")]
        outgoing: list[Outgoing] = []
        if ours:
            for message in self._messages.values():
                grant = merge_grants(s for s in ours if matches(s.filter, message.topic))
                if grant is not None and rights.may_receive(message.topic):
                    outgoing.append((message, replace(grant, retained=True)))
        return outgoing

    def rates(self) -> dict[str, object]:
        """Messages a second, on average over about the last minute: for people and monitoring. Of a
        broker that does not publish `$SYS` nobody counts them."""
        return {
            name: round(self._loads[total].per_minute[1] / 60, 1)
            for name, total in (
                ("messages_in_per_s", "publish/received"),
                ("messages_out_per_s", "publish/sent"),
            )
            if total in self._loads
        }

    def _values(self, now: Monotonic, stats: StoreStats) -> dict[str, object]:
        sessions, counters = self._sessions, self._counters
        connected = sessions.connected_count - self._groups.open_count
        disconnected = sessions.kept.absent_count
        self._connected_most = max(self._connected_most, connected)
        received, sent = counters.messages_in, counters.messages_out
        dropped = counters.dropped.total()
        values: dict[str, object] = {
            "version": f"pubsub version {__version__}",
            "uptime": f"{now - self._started_at:.0f} seconds",
            "clients/total": connected + disconnected,
            "clients/connected": connected,
            "clients/active": connected,
            "clients/disconnected": disconnected,
            "clients/inactive": disconnected,
            "clients/expired": sessions.expiry.count,
            "clients/maximum": self._connected_most,
            "subscriptions/count": self._delivery.subscription_count,
            "shared_subscriptions/count": self._groups.open_count,
            "bytes/received": counters.bytes_in,
            "bytes/sent": counters.bytes_out,
            "messages/received": counters.packets.received,
            "messages/sent": counters.packets.sent,
            "messages/stored": stats.messages,
            "retained messages/count": stats.retained,
            "publish/messages/received": received,
            "publish/messages/sent": sent,
            "publish/messages/dropped": dropped,
            "publish/bytes/received": counters.payload_bytes_in,
            "publish/bytes/sent": counters.payload_bytes_out,
            "store/messages/count": stats.messages,
            "store/messages/bytes": stats.bytes_on_disk,
            "store/high_watermark": stats.high_watermark,
            "store/log_start": stats.log_start,
            "commits": counters.commits,
            "groups/attempts failed": counters.groups.attempts_failed,
            "groups/dead letters": counters.groups.dead_letters,
            **dict(_memory()),
        }
        for tell in self.more:
            values |= tell()
        elapsed_s = now - self._published_at
        for name, total in (
            ("bytes/received", counters.bytes_in),
            ("bytes/sent", counters.bytes_out),
            ("connections", counters.connects),
            ("messages/received", counters.packets.received),
            ("messages/sent", counters.packets.sent),
            ("publish/dropped", dropped),
            ("publish/received", received),
            ("publish/sent", sent),
            ("sockets", counters.connections),
        ):
            load = self._loads.setdefault(name, Load())
            load.update(total, elapsed_s)
            for minutes, rate in load.per_minute.items():
                values[f"load/{name}/{minutes}min"] = f"{rate:.2f}"
        return values


def _memory() -> Iterator[tuple[str, int]]:
    """The resident memory of this process in bytes.

    Linux updates the maximum now and then, so it can be less than the current figure.
    """
    current = 0
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        current = pages * resource.getpagesize()
        yield "heap/current", current
    unit = 1 if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    yield "heap/maximum", max(current, most)


class Load:
    """How much a total grows per minute, on average over about the last 1, 5 and 15 minutes.

    An exponentially damped average, as Unix has for its load: the latest growth counts most.
    """

    def __init__(self) -> None:
        self.per_minute = dict.fromkeys(LOAD_MINUTES, 0.0)
        self._total = 0

    def update(self, total: int, elapsed_s: float) -> None:
        if elapsed_s <= 0:
            return
        rate = (total - self._total) * 60 / elapsed_s
        self._total = total
        for minutes, average in self.per_minute.items():
            remains = math.exp(-elapsed_s / (60 * minutes))
            self.per_minute[minutes] = rate + (average - rate) * remains
