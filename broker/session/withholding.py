"""Withholding: what waits in a session, and its client may not read any more, goes nowhere.

What may not be read is as if no Topic Filter matched it, so nobody counts it. But what waits here
was promised, and is dropped: whoever takes it out counts it. (P5)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress
from typing import NamedTuple

from broker.message import Lease, Outgoing
from broker.security.rights import Rights
from broker.session.exchange import Taken
from broker.session.session import Session

NOT_PERMITTED = "not permitted any more"
"""Why they count as dropped."""


def readable(outgoing: list[Outgoing], rights: Rights) -> list[Outgoing]:
    """Those that may be read."""
    if not rights.limited:
        return outgoing
    may_receive = rights.may_receive
    return [entry for entry in outgoing if may_receive(entry[0].topic)]


def may_go(entry: Outgoing, rights: Rights) -> bool:
    """Whether it may be read; of a replay, read again."""
    message, grant = entry
    return (rights.may_replay if grant.replay else rights.may_receive)(message.topic)


class Permitted(NamedTuple):
    """What of something taken may go; the Packet Identifiers of what may not; and leases that
    have ended, which are for their groups."""

    outgoing: list[Outgoing]
    packet_ids: list[int]
    withheld: Sequence[int] = ()
    returned: Sequence[Lease] = ()


def still_permitted(taken: Taken, session: Session) -> Permitted:
    """Of what was taken, and not sent yet."""
    rights, window = session.grants.rights, session.in_flight
    outgoing, packet_ids = taken.outgoing, taken.packet_ids
    if not rights.limited:
        return Permitted(outgoing, packet_ids)
    may = [may_go(entry, rights) for entry in outgoing]
    withheld = [packet_id for packet_id, yes in zip(packet_ids, may, strict=True) if not yes]
    held = window.leases.held
    leased = [packet_id for packet_id in withheld if packet_id in held]
    others = [packet_id for packet_id in withheld if packet_id not in held]
    returned = window.leases.refuse(leased)
    window.finish(leased)
    return Permitted(
        [*compress(outgoing, may)],
        [*compress(packet_ids, may)],
        others,
        returned,
    )


def withhold(session: Session) -> int:
    """Take out what waits and may not be read any more: how many. Not what is leased: that goes
    back to its group."""
    rights = session.grants.rights
    if not rights.limited:
        return 0
    return (
        session.outbox.withhold(rights.may_receive)
        + session.owed.withhold(rights.may_receive)
        + _withhold_aside(session, rights)
    )


def _withhold_aside(session: Session, rights: Rights) -> int:
    kept: deque[Outgoing] = deque()
    withheld = 0
    untold: list[range] = []
    for message, grant in session.supply.aside:
        if grant.lease is None and not may_go((message, grant), rights):
            withheld += 1
            untold += grant.missing
        elif untold:
            kept.append((message, replace(grant, missing=(*untold, *grant.missing))))
            untold = []
        else:
            kept.append((message, grant))
    session.supply.aside = kept
    session.supply.miss(untold)
    return withheld
