"""`pubsub sub`: writes each message to standard output, and acknowledges it after that.

- A message is acknowledged when its line was written and flushed, or its `--exec` command
  succeeded. Ctrl-C and a closed pipe leave the rest to the next start.
- `--id` makes the session outlive the process, so that one command serves the first start and all
  later ones: the session is begun if there is none, and gone on with if there is one. What the
  command no longer names stays subscribed to, and is said; `--only` drops it, `--fresh` all of it.
- When the connection breaks, the session is resumed; one that the broker keeps only while connected
  is subscribed anew.
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from dataclasses import dataclass

from paho.mqtt.client import MQTTMessage

from broker.errors import ReplaySpecInvalid, TopicFilterInvalid
from broker.replay.spec import parse, split_filter
from broker.topics import REPLAY_ENDED, matches, parse_shared, validate_filter
from cli.messages.execute import Command
from cli.messages.format import Format, metadata
from cli.messages.pace import Pace
from cli.messages.worker import Worker
from cli.net.address import Address
from cli.net.client import (
    NO_SUBSCRIPTION_EXISTED,
    NOT_AUTHORIZED_CODES,
    Client,
    HasFileno,
    UserProperties,
)
from cli.net.reconnect import reconnect
from cli.net.session import TELL_SUBSCRIPTIONS, StoredSubscriptions, discard
from cli.terminal import output
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit, OutputClosed
from cli.terminal.interrupt import Interrupt

SESSION_EXPIRY_S = 30 * 86_400
PREFETCH_MESSAGES = 1000
TURN_S = 60.0
PING_S = 5.0
GAP = "gap"
"""How often the connection is looked after while more has come than is due."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Where it begins and ends, and how many times as fast as it was; None: as fast as can be."""

    start: str | None = None
    until: str | None = None
    speed: float | None = None


NO_REPLAY = Replay()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    address: Address
    filters: tuple[str, ...]
    client_id: str
    durable: bool
    resume: bool = False
    fresh: bool = False
    only: bool = False
    qos: int
    format: Format
    metadata: bool
    replay: Replay = NO_REPLAY
    count: int | None = None
    """End after so many messages; 0: when it is subscribed."""
    timeout_s: float | None = None
    command: Command | None = None
    ignore_retained: bool = False
    filtered_out: tuple[str, ...] = ()
    """Topic Filters whose messages are not written."""
    unsubscribe: tuple[str, ...] = ()
    session_expiry_s: int = SESSION_EXPIRY_S
    """While nobody is connected, if it is durable."""
    quiet: bool = False


def subscribe(options: Options) -> Exit:
    """Until Ctrl-C, `--count`, `--timeout`, the end of the replay, or a failure.

    Raises CommandFailed before the broker is asked: one of the filters is none.
    """
    for topic_filter in (*options.filters, *options.filtered_out, *options.unsubscribe):
        check_filter(topic_filter)
    with Interrupt() as interrupt:
        subscriber = Subscriber(options, interrupt)
        try:
            return subscriber.run()
        except KeyboardInterrupt:
            return Exit.OK
        finally:
            subscriber.close()


class Subscriber:
    def __init__(self, options: Options, interrupt: Interrupt) -> None:
        self._options = options
        self._interrupt = interrupt
        self._client = Client(options.address, options.client_id, interrupt)
        self._written = 0
        self._replaying = set(options.filters) if options.replay.until is not None else None
        self._next_offset: int | None = None
        self._worker: Worker | None = None
        if options.command is not None:
            self._worker = Worker(
                *(self._client, interrupt, options.command, options.filters),
                self._open_again,
            )
        self._pace = None if options.replay.speed is None else Pace(options.replay.speed)
        self._deadline = (
            time.monotonic() + options.timeout_s if options.timeout_s is not None else None
        )

    def run(self) -> Exit:
        self._start()
        if self._options.count == 0:
            return Exit.OK
        reader_gone = output.reader_gone()
        while True:
            lost = None
            try:
                if self._turn(reader_gone):
                    raise OutputClosed
            except ConnectionLost as error:
                lost = error
                if self._worker is not None:
                    self._worker.lost()
                if self._options.durable:
                    self._leave_unacknowledged()
            if self._deliver():
                return Exit.OK
            if self._left_s(TURN_S) == 0:
                return Exit.TIMEOUT
            if lost is not None and not self._reconnect(lost):
                return Exit.TIMEOUT

    def close(self) -> None:
        self._client.close()

    def _turn(self, also: Sequence[HasFileno]) -> bool:
        """Let things happen; whether one of `also` can be read."""
        left_s = self._left_s(self._turn_s())
        pace = self._pace
        if pace is None:
            return bool(self._client.turn(left_s, also))
        gone = False
        if pace.full and left_s > 0:  # Only pings: what is due is here already.
            gone = bool(select.select([self._interrupt, *also], [], [], min(left_s, PING_S))[0])
            self._interrupt.check()
        if not pace.full or left_s > PING_S:
            gone = bool(self._client.turn(0 if pace.full else left_s, also))
        pace.held += self._client.arrived
        self._client.arrived.clear()
        return gone

    def _start(self) -> None:
        options = self._options
        if options.fresh:
            self._discard()
        session_present = self._open(clean_start=options.fresh or not options.durable)
        if options.resume and not session_present:
            self._client.close(end_session=True)
            raise CommandFailed(
                f"the broker has nothing to resume for {options.client_id}",
                f"subscribe first: pubsub sub TOPIC --id {options.client_id}",
                Exit.NOTHING_THERE,
            )
        stored = StoredSubscriptions.of(self._client.session_report)
        self._subscribe(options.replay.start)
        to = ", ".join(options.filters) or "what it had subscribed to"
        if session_present:
            self._note(f"resuming {options.client_id} where it stopped: {to}")
            self._reconcile(stored)
        else:
            as_whom = f" as {options.client_id}" if options.durable else ""
            self._note(f"subscribed to {to} (QoS {options.qos}){as_whom}")
        if options.unsubscribe:
            self._unsubscribe(options.unsubscribe)

    def _unsubscribe(self, filters: tuple[str, ...]) -> None:
        answers = self._client.unsubscribe_from(filters)
        for topic_filter, reason in zip(filters, answers, strict=True):
            named = output.escaped(topic_filter)
            if reason.value == NO_SUBSCRIPTION_EXISTED:
                self._note(f"was not subscribed to {named}")
            else:
                self._note(f"no longer subscribed to {named}")

    def _discard(self) -> None:
        options = self._options
        said = discard(Client(options.address, options.client_id, self._interrupt))
        if said is not None:
            self._note(f"the session of {options.client_id} is {said}")

    def _reconcile(self, stored: StoredSubscriptions) -> None:
        """Say where the command differs from what the session had before, and obey `--only`."""
        options = self._options
        begin = [
            name
            for name, value in (("--from", options.replay.start), ("--until", options.replay.until))
            if value is not None
        ]
        again = stored.named_in(options.filters) if stored.complete else options.filters
        if begin and again:
            self._note(
                f"{' and '.join(begin)} without effect on {', '.join(again)}: subscribed to"
                " already; --fresh begins anew"
            )
        if options.only and not stored.complete:
            raise CommandFailed(
                f"the broker does not tell what else {options.client_id} is subscribed to,"
                " so --only cannot drop it",
                "--fresh discards the session",
            )
        others = stored.not_in(options.filters) if options.filters else []
        others = [one for one in others if one not in options.unsubscribe]
        if not others:
            return
        named = ", ".join(map(output.escaped, others))
        if options.only:
            self._client.unsubscribe_from(others)
            self._note(f"no longer subscribed to {named}")
        else:
            self._note(f"still subscribed to {named}; --only drops what is not named")

    def _open(self, *, clean_start: bool) -> bool:
        options = self._options
        if options.command is not None:
            prefetch = 1  # what waits for the command here, another member of the group could do
        else:
            prefetch = min(PREFETCH_MESSAGES, options.count or PREFETCH_MESSAGES)
        return self._client.open(
            clean_start=clean_start,
            session_expiry_s=options.session_expiry_s if options.durable else 0,
            receive_max=prefetch,
            user_properties=TELL_SUBSCRIPTIONS if options.durable else (),
        )

    def _subscribe(self, start: str | None) -> None:
        options = self._options
        if not options.filters:
            return
        properties: list[tuple[str, str]] = []
        if options.metadata:
            properties.append(("metadata", "true"))
        if start is not None:
            properties.append(("from", start))
        if options.replay.until is not None:
            properties.append(("until", options.replay.until))
        subscribe_to(
            self._client, options.filters, options.qos, properties, new_only=options.durable
        )

    def _deliver(self) -> bool:
        """Write and acknowledge what has arrived; whether that was the last that is wanted."""
        options = self._options
        now = time.time()
        lines: list[bytes] = []
        done: list[MQTTMessage] = []
        finished = False
        while not finished and (message := self._next()) is not None:
            if self._replaying is not None and message.topic == REPLAY_ENDED:
                self._replaying.discard(message.payload.decode("utf-8", "replace"))
                finished = not self._replaying
                continue
            done.append(message)
            self._tell_missing(message)
            if message.retain and options.ignore_retained:
                continue
            if any(matches(one, message.topic) for one in options.filtered_out):
                continue
            if self._worker is not None:
                if not self._worker.deal_with(done.pop()):
                    continue
                self._remember(message)
            else:
                lines.append(options.format(message, now))
            self._written += 1
            finished = self._written == options.count
        if done:
            if lines:
                output.data(b"".join(lines))
            self._client.acknowledge(done)
            self._remember(done[-1])
        return finished

    def _tell_missing(self, message: MQTTMessage) -> None:
        """Offsets that came before it and are not in the log any more. (P5)"""
        sent = getattr(message.properties, "UserProperty", ())
        if missing := [value for name, value in sent if name == GAP]:
            ranges = ", ".join(missing)
            self._note(f"missing: offsets {ranges}, removed by retention, or damaged")

    def _next(self) -> MQTTMessage | None:
        """The next message to write; None: there is none, or it waits for one that failed."""
        arrived = self._client.arrived
        failed = None if self._worker is None else self._worker.failed
        if self._pace is not None:
            arrived = self._pace.held
            if self._pace.left_s(time.monotonic()):
                return None
        if failed is not None and time.monotonic() >= failed.due:
            return failed.message
        if arrived and (failed is None or arrived[0].qos == 0):
            return arrived.popleft()
        return None

    def _turn_s(self) -> float:
        """How long to wait for what arrives."""
        if self._pace is not None:
            left_s = self._pace.left_s(time.monotonic())
            return TURN_S if left_s is None else min(TURN_S, left_s)
        failed = None if self._worker is None else self._worker.failed
        if failed is None:
            return TURN_S
        return min(TURN_S, max(0.0, failed.due - time.monotonic()))

    def _remember(self, message: MQTTMessage) -> None:
        if self._options.replay.start is not None and not self._options.durable:
            offset = metadata(message).get("offset")
            if isinstance(offset, int):
                self._next_offset = offset + 1

    def _leave_unacknowledged(self) -> None:
        """What came by QoS 1 or 2 is sent again when the session is resumed."""
        arrived = self._client.arrived
        kept = [message for message in arrived if message.qos == 0]
        arrived.clear()
        arrived.extend(kept)

    def _reconnect(self, lost: ConnectionLost) -> bool:
        """Whether it succeeded before the timeout."""
        self._note(f"connection lost ({lost}); reconnecting")
        return reconnect(self._open_again, lost, self._interrupt, self._left_s)

    def _open_again(self) -> None:
        options = self._options
        if self._open(clean_start=not options.durable):
            self._note("reconnected, session resumed")
        else:
            if self._pace is not None:
                self._pace.held.clear()
            again = self._next_offset
            self._subscribe(options.replay.start if again is None else str(again))
            self._note("reconnected, subscribed again")

    def _left_s(self, at_most_s: float) -> float:
        if self._deadline is None:
            return at_most_s
        return max(0.0, min(at_most_s, self._deadline - time.monotonic()))

    def _note(self, sentence: str) -> None:
        if not self._options.quiet:
            output.note(sentence)


def subscribe_to(
    client: Client,
    filters: tuple[str, ...],
    qos: int,
    properties: UserProperties = (),
    *,
    new_only: bool = False,
) -> None:
    """Raises CommandFailed: one of them is no Topic Filter, or the broker refuses it."""
    for filter_ in filters:
        check_filter(filter_)
    history = any(name == "from" for name, _ in properties)
    reasons = client.subscribe_to(filters, qos, new_only=new_only, user_properties=properties)
    for filter_, reason in zip(filters, reasons, strict=True):
        if reason.is_failure:
            refused = f"the broker refuses to subscribe to {output.escaped(filter_)}: {reason}"
            if reason.value not in NOT_AUTHORIZED_CODES:
                raise CommandFailed(refused)
            remedy = client.address.right_to("subscribe", filter_, reads_history=history)
            raise CommandFailed(refused, remedy, Exit.NOT_AUTHORIZED)


def check_filter(topic_filter: str) -> None:
    """Raises CommandFailed: a broker would end the connection, or refuse it without a reason."""
    try:
        validate_filter(topic_filter)
        parse_shared(topic_filter)
        if (replay := split_filter(topic_filter)) is not None:
            parse(replay[0], time.time_ns() // 1000)
    except (TopicFilterInvalid, ReplaySpecInvalid) as error:
        raise CommandFailed(f"{topic_filter!r}: {error}", code=Exit.USAGE) from error
