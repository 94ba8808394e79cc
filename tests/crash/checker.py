"""The judge of a crash test: pure functions from a recorded history to the promises it breaks.

Each rule yields sentences; no sentence, no fault. The rules take the log (the table as read from
the file) as what the broker says happened, and the clients' records as what did happen:

- `check_growth` (P2): the log only grows, at its end. Called for every reading of the file.
- `stored` (P1): what was acknowledged to a publisher is in the log, and each publisher's messages
  in the order of sending. A QoS 2 message is there once. A QoS 1 message may be there once for each
  time it was sent: a publisher that lost its connection before the PUBACK sends the message again
  [MQTT3-4.4.0-1], which the broker stores again, at an offset of its own [MQTT3-4.3.2-2].
- `delivered` (P3): every QoS 1 and 2 message of the log reached every subscriber it matches, and
  nothing reached anyone that is not in the log, but QoS 0, which leaves before it is logged (P9). A
  QoS 2 delivery is processed once.
- `ordered` (P3): each connection gets its messages once, in offset order, and so in each
  publisher's order; QoS 0 goes ahead of the others (P9), in the order of each topic. Over all
  connections, the first deliveries of QoS 1 and 2 messages are in that order. (QoS 0 that was lost
  with a connection may come late, if a crash lets it be repeated.)
- `not_repeated` (P4): of what was acknowledged, no connection gets more again than `repeats_max`,
  the in-flight window.
- `continued` (P4): what was in flight comes again, first and in the same order, with its Packet
  Identifier and DUP [MQTT3-4.4.0-1]. Each stored copy of a message is an exchange of its own. Holds
  between clean stops only, so `check` leaves it out.
- `sessions` (P3): a durable session is present at every connect but the first, any other never.
- `cursors` (P3): no cursor has passed a message that its subscriber did not acknowledge.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from tests.crash.history import Cursor, Delivery, History, Key, Stored


def check(history: History, repeats_max: int) -> list[str]:
    """Every fault in the history, after the drain."""
    return [
        *history.unexpected,
        *(f"still open after the drain: {exchange}" for exchange in history.unfinished),
        *stored(history),
        *sessions(history),
        *delivered(history),
        *ordered(history),
        *not_repeated(history, repeats_max),
        *cursors(history),
    ]


def check_growth(known: Mapping[int, Stored], sample: Iterable[Stored], epoch: int) -> list[str]:
    """Compare a reading of the whole log with all that was read before it (P2).

    An offset keeps its message for ever (nothing is removed in these tests), and new offsets are
    above all known ones.
    """
    faults = []
    newest = max(known, default=0)
    seen = set()
    for row in sample:
        if row.offset in seen:
            faults.append(f"offset {row.offset} is in the log twice")
        seen.add(row.offset)
        before = known.get(row.offset)
        if before is None and row.offset <= newest:
            faults.append(
                f"{row.key} appeared at offset {row.offset} in epoch {epoch}, below {newest}"
            )
        elif before is not None and before != row:
            faults.append(f"offset {row.offset} was {before.key} and is {row.key} in epoch {epoch}")
    faults.extend(
        f"offset {offset} ({known[offset].key}) vanished in epoch {epoch}"
        for offset in known
        if offset not in seen
    )
    return faults


def stored(history: History) -> Iterator[str]:
    copies = Counter(row.key for row in history.log.values())
    for row in history.log.values():
        published = history.published[row.key]
        if (row.topic, row.qos) != (published.topic, published.qos):
            yield f"{row.key} to {published.topic} is stored as {row}"
    for key, published in history.published.items():
        if published.acknowledged_in is not None and not copies[key]:
            yield f"{key} was acknowledged in epoch {published.acknowledged_in} and is not stored"
        copies_max = published.sent if published.qos == 1 else 1
        if copies[key] > copies_max:
            yield (
                f"{key} (QoS {published.qos}) was sent {published.sent} times and is stored "
                f"{copies[key]} times"
            )
    newest: Counter[str] = Counter()
    for key in dict.fromkeys(row.key for row in in_order(history)):
        if key.sequence < newest[key.publisher]:
            yield f"{key} is stored after {key.publisher}#{newest[key.publisher]}"
        newest[key.publisher] = max(newest[key.publisher], key.sequence)


def sessions(history: History) -> Iterator[str]:
    for connect in history.connects:
        if connect.session_present != (connect.durable and connect.connection > 1):
            yield (
                f"{connect.client}: session present = {connect.session_present} at connect "
                f"{connect.connection} (epoch {connect.epoch})"
            )


def delivered(history: History) -> Iterator[str]:
    first_offset: dict[Key, int] = {}
    for row in in_order(history):
        first_offset.setdefault(row.key, row.offset)
    for client, filters in history.subscriptions.items():
        processed: dict[Key, Delivery] = {}
        for delivery in history.deliveries[client]:
            key = delivery.key
            if delivery.held_for not in (None, key):
                yield (
                    f"{client}: {key} came with Packet Identifier {delivery.packet_id}, still "
                    f"held for {delivery.held_for} (epoch {delivery.epoch})"
                )
            if delivery.held_for is not None:
                continue
            offset = first_offset.get(key)
            granted = granted_qos(filters, delivery.topic)
            if offset is None and not history.published[key].qos:
                continue
            if offset is None:
                yield f"{client}: {key} was delivered (epoch {delivery.epoch}), is not in the log"
                continue
            if granted is None:
                yield (
                    f"{client}: {key} was delivered (epoch {delivery.epoch}), which it did not "
                    "subscribe to"
                )
                continue
            published = history.published[key]
            expected = published.topic, min(granted, published.qos)
            if (delivery.topic, delivery.qos) != expected:
                yield f"{client}: {key} came as {delivery.topic, delivery.qos}, not {expected}"
            earlier = processed.setdefault(key, delivery)
            if earlier is not delivery and delivery.qos == 2:
                yield (
                    f"{client}: {key} (offset {offset}) was processed twice, in epoch "
                    f"{earlier.epoch} as {earlier.packet_id} and in epoch {delivery.epoch} as "
                    f"{delivery.packet_id}"
                )
        for key, offset in first_offset.items():
            published = history.published[key]
            if key not in processed and min(
                published.qos, granted_qos(filters, published.topic) or 0
            ):
                yield f"{client}: {key} (offset {offset}, QoS {published.qos}) never came"


def ordered(history: History) -> Iterator[str]:
    offsets: defaultdict[Key, list[int]] = defaultdict(list)
    for row in in_order(history):
        offsets[row.key].append(row.offset)
    for client in history.subscriptions:
        connection = newest_ever = 0
        newest_of: Counter[str] = Counter()
        """The newest offset of QoS 0 on each topic, and of all others."""
        seen: set[Key] = set()
        for delivery in history.deliveries[client]:
            if delivery.connection > connection:
                connection = delivery.connection
                newest_of.clear()
            copies = offsets[delivery.key]
            lane = "" if history.published[delivery.key].qos else delivery.topic
            newest = newest_of[lane]
            # Of a message that is stored twice, it is the copy whose turn it is.
            offset = next((each for each in copies if each > newest), None)
            is_first = delivery.qos > 0 and delivery.key not in seen
            if copies and (offset is None or (is_first and copies[0] < newest_ever)):
                yield (
                    f"{client}: {delivery.key} (offset {copies[0]}) came after offset "
                    f"{newest_ever if offset else newest}, in epoch {delivery.epoch}"
                )
            newest_of[lane] = offset or newest
            if is_first:
                seen.add(delivery.key)
                newest_ever = max([newest_ever, *copies[:1]])


def not_repeated(history: History, repeats_max: int) -> Iterator[str]:
    copies: defaultdict[Key, list[int]] = defaultdict(list)
    for row in in_order(history):
        copies[row.key].append(row.offset)
    left_at = {(cursor.client, cursor.epoch): cursor.offset for cursor in history.cursors}
    for client in history.subscriptions:
        acknowledged: set[int] = set()
        repeats: Counter[int] = Counter()
        connection = newest = 0
        for delivery in history.deliveries[client]:
            if delivery.connection > connection:
                # Nothing comes at or below the cursor that the last kill left.
                connection = delivery.connection
                newest = left_at.get((client, delivery.epoch - 1), 0)
            if not history.published[delivery.key].qos:
                continue
            # Of a message that is stored twice, it is the copy whose turn it is.
            offset = next((each for each in copies[delivery.key] if each > newest), None)
            if offset is None:
                continue
            newest = offset
            repeats[connection] += offset in acknowledged
            if delivery.acknowledged_in is not None:
                acknowledged.add(offset)
        for connection, number in repeats.items():
            if number > repeats_max:
                yield f"{client}: {number} acknowledged messages came again at connect {connection}"


def continued(history: History) -> Iterator[str]:
    for client in history.subscriptions:
        in_flight: dict[int, Delivery] = {}  # By Packet Identifier, in the order of first delivery.
        for _, connection in groupby(history.deliveries[client], lambda each: each.connection):
            due = deque(in_flight.values())
            for delivery in connection:
                if not delivery.qos:
                    continue
                if due:
                    before = due.popleft()
                    wanted = before.key, before.packet_id, True
                    if (delivery.key, delivery.packet_id, delivery.dup) != wanted:
                        yield (
                            f"{client}: {before.key} was in flight as {before.packet_id}; instead "
                            f"{delivery.key} came with {delivery.packet_id}, DUP = {delivery.dup} "
                            f"(epoch {delivery.epoch})"
                        )
                if delivery.acknowledged_in is None:
                    in_flight[delivery.packet_id] = delivery
                else:
                    in_flight.pop(delivery.packet_id, None)
        for before in in_flight.values():
            yield f"{client}: {before.key} was in flight as {before.packet_id}, never to come again"


def cursors(history: History) -> Iterator[str]:
    """A message that is stored twice needs an acknowledgement for each copy that was passed."""
    by_client: defaultdict[str, list[Cursor]] = defaultdict(list)
    for cursor in history.cursors:
        by_client[cursor.client].append(cursor)
    for client, filters in history.subscriptions.items():
        acknowledged: defaultdict[Key, list[int]] = defaultdict(list)
        for delivery in history.deliveries[client]:
            if delivery.acknowledged_in is not None:
                acknowledged[delivery.key].append(delivery.acknowledged_in)
        owed = [
            row for row in in_order(history) if min(row.qos, granted_qos(filters, row.topic) or 0)
        ]
        passed: Counter[Key] = Counter()
        done = before = 0
        for cursor in by_client[client]:
            if cursor.offset < before:
                yield f"{client}: the cursor fell from {before} to {cursor.offset}"
            before = max(before, cursor.offset)
            claimed = []
            while done < len(owed) and owed[done].offset <= cursor.offset:
                claimed.append(owed[done])
                done += 1
            passed.update(row.key for row in claimed)
            end = done
            while end < len(owed) and owed[end].offset <= cursor.sent_through:
                end += 1
            beyond = [row for row in owed[done:end] if row.offset not in cursor.inflight]
            copies_beyond = Counter(row.key for row in beyond)
            claimed += beyond
            for row in claimed:
                by_then = sum(epoch <= cursor.epoch for epoch in acknowledged[row.key])
                needed = passed[row.key] + copies_beyond[row.key]
                if by_then < needed:
                    yield (
                        f"{client}: after epoch {cursor.epoch} the cursor ({cursor.offset}, sent "
                        f"through {cursor.sent_through}) claims {row.key} at offset {row.offset}, "
                        f"acknowledged by then {by_then} times of {needed}"
                    )


def in_order(history: History) -> list[Stored]:
    return [history.log[offset] for offset in sorted(history.log)]


def granted_qos(filters: Mapping[str, int], topic: str) -> int | None:
    """The highest QoS among the filters that match; None if none does [MQTT-3.3.4-2]."""
    return max((qos for name, qos in filters.items() if matches(name, topic)), default=None)


def matches(topic_filter: str, topic: str) -> bool:
    """Section 4.7, without the rules for `$` and the parent of `#`, which no test here uses."""
    levels, names = topic_filter.split("/"), topic.split("/")
    if levels[-1] == "#":
        levels, names = levels[:-1], names[: len(levels) - 1]
    return len(levels) == len(names) and all(
        level in ("+", name) for level, name in zip(levels, names, strict=True)
    )
