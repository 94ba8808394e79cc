"""The judge of Shared Subscriptions, as pure as `checker.py`, beside which it stands.

A group promises to its members together what a subscriber is promised alone:

- `complete` (P3): every QoS 1 and 2 message of the log that matches was acknowledged by a member,
  once for each stored copy, and no member got what it should not have.
- `exclusive` (P3, P4): one member at a time has a message. It comes again only if the connection
  that had it ended without acknowledging it, or if the acknowledgement can have been lost: of one
  connection that was cut off at most `repeats_max`, the in-flight window; with a kill at most so
  many for each member. A QoS 2 message stays with its member. [MQTT-4.8.2-4]
- `rising` (P3): a connection gets new messages in offset order, but for what another member had
  waiting that left meanwhile.
- `caught_up`: the group's cursor never falls, and in the end nothing is owed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from math import inf

from tests.crash.checker import in_order, matches
from tests.crash.history import Connected, Delivery, History, Key


def check_groups(history: History, repeats_max: int) -> list[str]:
    """Every fault in the history, after the drain and a clean stop."""
    faults = []
    for group in history.groups:
        faults += [
            *complete(history, group),
            *exclusive(history, group, repeats_max),
            *rising(history, group),
            *caught_up(history, group),
        ]
    return faults


def inner_filter(group: str) -> str:
    """That of `$share/<ShareName>/<filter>`."""
    return group.split("/", 2)[2]


def complete(history: History, group: str) -> Iterator[str]:
    copies = copies_owed(history, group)
    acknowledged: Counter[Key] = Counter()
    for member, granted in history.groups[group].items():
        for delivery in history.deliveries[member]:
            key = delivery.key
            acknowledged[key] += delivery.acknowledged_in is not None
            published = history.published[key]
            expected = published.topic, min(granted, published.qos)
            if published.qos and not copies[key]:
                yield f"{member}: {key} was delivered (epoch {delivery.epoch}), is not owed to it"
            elif (delivery.topic, delivery.qos) != expected:
                yield f"{member}: {key} came as {delivery.topic, delivery.qos}, not {expected}"
            if delivery.held_for not in (None, key):
                yield (
                    f"{member}: {key} came with Packet Identifier {delivery.packet_id}, still "
                    f"held for {delivery.held_for} (epoch {delivery.epoch})"
                )
    for key, needed in copies.items():
        if acknowledged[key] < needed:
            yield (
                f"{group}: {key} is stored {needed} times and was acknowledged "
                f"{acknowledged[key]} times"
            )


def exclusive(history: History, group: str, repeats_max: int) -> Iterator[str]:
    copies = copies_owed(history, group)
    connects = connections(history)
    earlier: defaultdict[Key, list[tuple[Delivery, Connected]]] = defaultdict(list)
    cut_off: defaultdict[tuple[str, int], set[Key]] = defaultdict(set)
    with_kill: defaultdict[int, set[Key]] = defaultdict(set)
    for member, delivery in arrivals(history, group):
        if not delivery.qos or delivery.held_for is not None:
            continue
        before = earlier[delivery.key]
        holders = [
            connect
            for claim, connect in before
            if still_has(claim, connect, delivery, history.killed)
        ]
        acknowledged = [
            (epoch, connect)
            for claim, connect in before
            if (epoch := claim.acknowledged_in) is not None
        ]
        if len(holders) >= copies[delivery.key]:
            having = ", ".join(f"{each.client} (connect {each.connection})" for each in holders)
            yield f"{member}: {delivery.key} came in epoch {delivery.epoch}, and has it: {having}"
        elif len(acknowledged) >= copies[delivery.key]:
            epoch, connect = acknowledged[-1]
            if epoch in history.killed and epoch < delivery.epoch:
                with_kill[epoch].add(delivery.key)
            else:
                cut_off[connect.client, connect.connection].add(delivery.key)
        before.append((delivery, connects[member, delivery.connection]))
    for epoch, keys in with_kill.items():
        if (number := len(keys)) > repeats_max * len(history.groups[group]):
            yield f"{group}: {number} messages came again that were acknowledged in epoch {epoch}"
    for (member, connection), keys in cut_off.items():
        if (number := len(keys)) > repeats_max:
            yield (
                f"{group}: {number} messages came again that {member} had acknowledged in its "
                f"connection {connection}"
            )


def still_has(claim: Delivery, connect: Connected, later: Delivery, killed: set[int]) -> bool:
    """Whether a message that came to this connection may not come again as `later`."""
    if claim.qos == 2:
        return True
    if connect.ended_at is None or connect.ended_at > later.at:
        return True
    epoch = claim.acknowledged_in
    lost = epoch in killed and epoch != later.epoch
    return epoch is not None and connect.clean and not lost


def rising(history: History, group: str) -> Iterator[str]:
    departures = list(departed(history, group))
    offsets: defaultdict[Key, list[int]] = defaultdict(list)
    for row in in_order(history):
        offsets[row.key].append(row.offset)
    seen: set[Key] = set()
    newest: Counter[tuple[str, int]] = Counter()
    for member, delivery in arrivals(history, group):
        key, connection = delivery.key, (member, delivery.connection)
        copies = offsets[key]
        # Of a message that is stored twice, it is the copy whose turn it is.
        offset = next((each for each in copies if each > newest[connection]), None)
        if offset is not None:
            newest[connection] = offset
        elif copies and key not in seen:
            published_at = history.published[key].at
            if not any(at < delivery.at and published_at < by for at, by in departures):
                yield (
                    f"{member}: {key} (offset {copies[0]}) came after offset "
                    f"{newest[connection]}, in epoch {delivery.epoch}"
                )
        seen.add(key)


def departed(history: History, group: str) -> Iterator[tuple[int, float]]:
    """When a member left, and by when the broker knew: it had let the member come back."""
    for member in history.groups[group]:
        connects = [each for each in history.connects if each.client == member]
        left = [each.at for each in history.unsubscribed if each.client == member]
        left += [each.ended_at for each in connects if each.ended_at is not None]
        for at in left:
            yield at, min((each.at for each in connects if each.at > at), default=inf)


def caught_up(history: History, group: str) -> Iterator[str]:
    cursors = [cursor for cursor in history.cursors if cursor.client == group]
    for before, after in pairwise(cursors):
        if after.offset < before.offset:
            yield f"{group}: the cursor fell from {before.offset} to {after.offset}"
    last = cursors[-1]
    for row in in_order(history):
        passed = row.offset <= last.sent_through and row.offset not in last.inflight
        if row.qos and matches(inner_filter(group), row.topic) and not passed:
            yield f"{group}: {row.key} (offset {row.offset}) is owed in the end"


def arrivals(history: History, group: str) -> list[tuple[str, Delivery]]:
    """What came to the members, in the order in which it came. What a client reads after it ended
    the connection came before that: its broker knows of the end by then, the client may be slow."""
    connects = connections(history)
    arrived: list[tuple[str, Delivery]] = []
    for member in history.groups[group]:
        for delivery in history.deliveries[member]:
            ended_at = connects[member, delivery.connection].ended_at
            if ended_at is not None and ended_at < delivery.at:
                delivery = replace(delivery, at=ended_at)
            arrived.append((member, delivery))
    return sorted(arrived, key=lambda arrival: arrival[1].at)


def connections(history: History) -> dict[tuple[str, int], Connected]:
    return {(connect.client, connect.connection): connect for connect in history.connects}


def copies_owed(history: History, group: str) -> Counter[Key]:
    """How often each QoS 1 and 2 message that matches is stored."""
    topic_filter = inner_filter(group)
    return Counter(
        row.key for row in in_order(history) if row.qos and matches(topic_filter, row.topic)
    )
