"""JetStreamLog: a SharedLog that NATS JetStream keeps on several machines.

No other module knows NATS. All records are in one stream with one subject, and a position is a
sequence number of that stream. `make_stream` makes it, with a name of its own for ever (`log_id`).

A record counts as stored when the stream has answered; nodes answer when a majority has it, and
has synced it if they are told to (`sync_interval: always`), which no client can see.

It follows with a consumer that lives as long as one node does, and makes a new one whenever
anything is not as expected: a number is missing, nothing is heard, the connection was lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api

from broker.errors import LogReplaced, SchemaMismatch, StoreFull, StoreUnavailable
from broker.store.shared.access import ANYBODY, Access
from broker.store.shared.address import stream_of, subject_of
from broker.store.shared.connecting import (
    GONE,
    PENDING_BYTES_MAX,
    RETRY_S,
    close,
    connect,
)
from broker.store.shared.shared_log import Logged, LogInfo, Undecided, begins_later

FORMAT = "1"
REPLY_TIMEOUT_S = 2.0
LEADER_TIMEOUT_S = 30.0
"""An election takes less than ten seconds."""
SILENCE_MAX_S = 2.5
"""Without a record or a heartbeat the consumer counts as lost."""
HEARTBEAT_S = 1.0
REQUEST_EXPIRES_S = 30.0
FOLLOWED_AT_ONCE = 500
"""Records that one request asks for ..."""
FOLLOWED_BYTES_MAX = 8 << 20
"""... and their bytes."""
STREAM_FULL = (10047, 10077)
"""Error codes of JetStream: no storage left, the stream has its maximum."""

logger = logging.getLogger(__name__)


async def make_stream(
    servers: Sequence[str],
    name: str,
    *,
    replicas: int,
    bytes_max: int = -1,
    access: Access = ANYBODY,
) -> str:
    """Make the stream of a new log; its `log_id`. Raises StoreUnavailable: also if there is one."""
    client = await connect(servers, access)
    try:
        log_id = secrets.token_hex(16)
        config = api.StreamConfig(
            name=stream_of(name),
            subjects=[subject_of(name)],
            storage=api.StorageType.FILE,
            num_replicas=replicas,
            discard=api.DiscardPolicy.NEW,
            max_bytes=bytes_max,
            deny_delete=True,
            metadata={"log_id": log_id, "format": FORMAT},
        )
        await client.jetstream().add_stream(config)
    except (nats.errors.Error, nats.js.errors.Error) as error:
        raise StoreUnavailable(f"the log {name} cannot be made: {error}") from error
    else:
        return log_id
    finally:
        await close(client)


@dataclass(slots=True, frozen=True)
class NodeFound:
    """`behind`: records that it lacks."""

    name: str
    leads: bool
    current: bool
    behind: int


@dataclass(slots=True, frozen=True)
class LogFound:
    """A log, for people. `nodes`: those that keep it."""

    name: str
    log_id: str
    records: int
    bytes: int
    oldest: int
    newest: int
    nodes: list[NodeFound]


async def look(servers: Sequence[str], name: str, *, access: Access = ANYBODY) -> LogFound:
    """Raises StoreUnavailable: also if there is none."""
    client = await connect(servers, access)
    try:
        info = await client.jsm().stream_info(stream_of(name))
    except nats.js.errors.NotFoundError as error:
        raise StoreUnavailable(_no_log(name)) from error
    except GONE as error:
        raise StoreUnavailable(f"the log {name} does not answer: {error}") from error
    finally:
        await close(client)
    state, cluster = info.state, info.cluster
    nodes: list[NodeFound] = []
    if cluster is not None:
        if cluster.leader:
            nodes.append(NodeFound(cluster.leader, leads=True, current=True, behind=0))
        for replica in cluster.replicas or []:
            current = bool(replica.current) and not replica.offline
            nodes.append(
                NodeFound(replica.name or "", leads=False, current=current, behind=replica.lag or 0)
            )
    log_id = (info.config.metadata or {}).get("log_id", "")
    ends = max(1, state.first_seq), state.last_seq
    return LogFound(name, log_id, state.messages, state.bytes, *ends, nodes)


class JetStreamLog:
    """See `SharedLog`."""

    def __init__(
        self,
        servers: Sequence[str],
        name: str,
        *,
        replicas_min: int = 3,
        access: Access = ANYBODY,
    ) -> None:
        """`servers` as `nats://host:port`. A stream with fewer replicas is refused."""
        self.servers = servers
        self.name = name
        self.client = Client()
        """Connected from `open` on."""
        self._replicas_min = replicas_min
        self._access = access
        self._log_id = ""
        self._is_open = False

    async def open(self) -> LogInfo:
        self.client = await connect(self.servers, self._access)
        self._is_open = True
        try:
            info = await self.info()
        except BaseException:
            await self.close()
            raise
        self._log_id = info.log_id
        return info

    async def info(self) -> LogInfo:
        found = await self._first_info()
        config, state = found.config, found.state
        return LogInfo(
            (config.metadata or {}).get("log_id", ""),
            state.last_seq,
            max(1, state.first_seq),
            state.bytes,
            config.max_bytes if (config.max_bytes or -1) > 0 else None,
        )

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            await close(self.client)

    async def append(self, body: bytes) -> int:
        try:
            answer = await self.client.request(
                subject_of(self.name),
                body,
                timeout=REPLY_TIMEOUT_S,
                headers={api.Header.EXPECTED_STREAM.value: stream_of(self.name)},
            )
        except nats.errors.MaxPayloadError as error:
            raise StoreUnavailable(
                f"the nodes of the log take no records of {len(body)} bytes: set max_payload"
            ) from error
        except (nats.errors.Error, OSError) as error:
            raise Undecided(f"the log did not answer: {error!r}") from error
        told = json.loads(answer.data)
        if "error" not in told:
            return int(told["seq"])
        if told["error"].get("err_code") in STREAM_FULL:
            raise StoreFull(f"the shared log is full: {told['error'].get('description')}")
        raise Undecided(f"the log refused a record: {told['error']}")

    async def follow(self, start: int) -> AsyncGenerator[Sequence[Logged], None]:
        position = start
        while True:
            try:
                async with aclosing(self._follow_one(position)) as parts:
                    async for part in parts:
                        position = part[-1].position + 1
                        yield part
            except (*GONE, Undecided) as error:
                logger.info("the shared log is followed anew from %d: %s", position, error)
            await asyncio.sleep(RETRY_S)

    async def _follow_one(self, start: int) -> AsyncGenerator[Sequence[Logged], None]:
        """With one consumer, as long as nothing is missing."""
        info = await self._info()
        if (info.config.metadata or {}).get("log_id") != self._log_id:
            raise LogReplaced("the shared log was made anew: it is not the one that was followed")
        if start < info.state.first_seq:
            raise begins_later(info.state.first_seq, start)
        stream = stream_of(self.name)
        manager = self.client.jsm()
        consumer = await manager.add_consumer(
            stream,
            api.ConsumerConfig(
                deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=start,
                ack_policy=api.AckPolicy.NONE,
                inactive_threshold=2 * REQUEST_EXPIRES_S,
                num_replicas=1,
                mem_storage=True,
            ),
        )
        inbox = self.client.new_inbox()
        subscription = await self.client.subscribe(
            inbox, pending_msgs_limit=-1, pending_bytes_limit=PENDING_BYTES_MAX
        )
        ask = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer.name}"
        try:
            async with aclosing(self._requested(subscription, ask, inbox, start)) as parts:
                async for part in parts:
                    yield part
        finally:
            with suppress(*GONE):
                await subscription.unsubscribe()
            with suppress(*GONE):
                await manager.delete_consumer(stream, consumer.name)

    async def _requested(
        self, subscription: Subscription, ask: str, inbox: str, start: int
    ) -> AsyncGenerator[Sequence[Logged], None]:
        request = {
            "batch": FOLLOWED_AT_ONCE,
            "max_bytes": FOLLOWED_BYTES_MAX,
            "expires": int(REQUEST_EXPIRES_S * 1e9),
            "idle_heartbeat": int(HEARTBEAT_S * 1e9),
        }
        position, delivered, asked = start, 0, 0
        while True:
            if delivered >= asked:
                await self.client.publish(ask, json.dumps(request).encode(), reply=inbox)
                asked = delivered + FOLLOWED_AT_ONCE
            message = await subscription.next_msg(timeout=SILENCE_MAX_S)
            part: list[Logged] = []
            while True:
                if _status(message) is None:
                    sequence, delivered = _numbers(message)
                    if sequence != position:
                        raise Undecided(f"record {sequence} came where {position} was to come")
                    part.append(Logged(sequence, message.data))
                    position += 1
                elif _status(message) in ("408", "409"):  # The request is over.
                    asked = delivered
                elif _status(message) != "100":  # A heartbeat.
                    raise Undecided(f"the consumer ended: {message.headers}")
                if not subscription.pending_msgs or len(part) >= FOLLOWED_AT_ONCE:
                    break
                message = await subscription.next_msg(timeout=SILENCE_MAX_S)
            if part:
                yield part

    async def trim(self, before: int) -> None:
        try:
            await self.client.jsm().purge_stream(stream_of(self.name), seq=before)
        except GONE as error:
            raise StoreUnavailable(f"the log cannot be trimmed: {error!r}") from error

    async def _first_info(self) -> api.StreamInfo:
        """Nodes that have just started, or lost their leader, have none yet. Raises as `_info`."""
        deadline = time.monotonic() + LEADER_TIMEOUT_S
        while True:
            try:
                return await self._info()
            except Undecided as error:
                if time.monotonic() > deadline:
                    raise StoreUnavailable(str(error)) from error
            await asyncio.sleep(RETRY_S)

    async def _info(self) -> api.StreamInfo:
        """Raises Undecided, StoreUnavailable, SchemaMismatch."""
        try:
            manager = self.client.jsm(timeout=REPLY_TIMEOUT_S)
            info = await manager.stream_info(stream_of(self.name))
        except nats.js.errors.NotFoundError as error:
            raise StoreUnavailable(
                f"there is no log {self.name}: pubsub cluster init makes it"
            ) from error
        except (nats.errors.Error, nats.js.errors.Error) as error:
            raise Undecided(f"the log did not answer: {error!r}") from error
        config = info.config
        if (config.metadata or {}).get("format") != FORMAT:
            raise SchemaMismatch(f"the stream {config.name} is not a log of this pubsub")
        if (config.num_replicas or 1) < self._replicas_min:
            raise SchemaMismatch(
                f"the stream {config.name} has {config.num_replicas} replicas, and is to have"
                f" {self._replicas_min}"
            )
        return info


def _no_log(name: str) -> str:
    return f"there is no log {name}: pubsub cluster init makes it"


def _status(message: Msg) -> str | None:
    """Of a message that is no record."""
    return None if message.data or not message.headers else message.headers.get("Status")


def _numbers(message: Msg) -> tuple[int, int]:
    """Of a record: in the stream, and of those that the consumer delivered."""
    parts = message.reply.split(".")
    # $JS.ACK.<stream>.<consumer>.<deliveries>.<in the stream>.<at the consumer>.<time>.<left>,
    # with a domain and an account before the stream where there are such.
    return int(parts[-4]), int(parts[-3])
