"""At once: QoS 0 goes to live sessions in the turn of the loop in which it came. (P9)

Nobody waits for its commit, and so nobody is made to. A session that has had every run of such
messages so far is *ahead*: it is handed the next one as it comes, and when that is routed, after
its commit, it is passed over. A session that cannot take a run (its socket is full, something older
waits for it, it replays or asked for the offset of each, it is a group's) stays back: it gets that
run and what follows as it gets everything else, until it has taken all of it and catches up with
the sessions ahead.

The place of a durable session that is ahead is in the commit of what it was handed, so a crash
repeats nothing. One that catches up is also handed what is in the commit that runs, and its place
follows in the next one: a crash between the two repeats that.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter

from broker.counters import Counters
from broker.delivery.readers import size_of
from broker.delivery.routes import Routed, Routes, RouteTable, route
from broker.delivery.subscribers import Subscribers
from broker.delivery.waking import AT_ONCE_MAX, WAKE_MESSAGES
from broker.handed_on import HandedOn
from broker.log.log import Log
from broker.message import Message, Offset, Outgoing
from broker.session.position import LivePosition
from broker.session.session import Session
from broker.session.withholding import readable

_offset_of: Callable[[Message], Offset] = attrgetter("offset")
PARTS_MAX = 100
"""What is handed on and not routed is in no more parts than this, for a durable session: its cursor
names the offsets of each. Nor is what such a session was handed beyond its place."""
TOO_SLOW = "beside the log, to a slow subscriber"
"""Why a message that is not logged is counted as dropped: somebody could not take it at once."""


class AtOnce:
    def __init__(
        self,
        log: Log,
        counters: Counters,
        routes: RouteTable,
        live: LivePosition,
        subscribers: Subscribers,
    ) -> None:
        self._log = log
        self._counters = counters
        self._routes = routes
        self._live = live
        self._subscribers = subscribers
        self.back: dict[Session, None] = {}
        """Live sessions that are not ahead."""
        self._later: dict[Session, list[list[Outgoing]]] = {}
        """Of these, those for whom this turn of the loop had no time, and what they are handed in
        the next ones, unless it is routed before."""
        self._sent: list[int] = []
        """In this turn, up to each session that was handed something; as `Waking` counts."""

    def hand_on(self, messages: Sequence[Message], number: int) -> bool:
        """Give the run with this number to whoever wants it and is ahead: to as many as there is
        time for at once, and to the others in the next turns. Whether a live session that wants it
        waits for its commit instead."""
        awaited = False
        sent = self._sent
        many = len(self._live.ahead.parts) > PARTS_MAX
        for session, (outgoing, size) in route(messages, self._routes.of).items():
            standing = session.standing
            if not standing.ahead:
                if session in self._later:
                    self._later[session].append(outgoing)
                else:
                    awaited |= session in self.back and not session.supply.waiting
            elif (many and session.durable) or (standing.kept and len(standing.kept) > PARTS_MAX):
                self.stay_back(session, number - 1)
                awaited = True
            elif sent and sent[-1] >= AT_ONCE_MAX:
                self.stay_back(session, number - 1)
                if not self._later:
                    asyncio.get_running_loop().call_soon(self._next_turn)
                self._later[session] = [outgoing]
            else:
                self._count(outgoing, size)
                if not self._subscribers.hand_on(session, outgoing):
                    self.stay_back(session, number - 1)
                    continue
                if session.durable:
                    self._log.changed_with_qos0(session)
                if standing.kept is not None:
                    standing.went_past()
        return awaited

    def stay_back(self, session: Session, number: int | None = None) -> None:
        """It has had every run up to this number, or every run so far, and gets what follows from
        the log."""
        if session.standing.ahead:
            session.standing.stay_back(self._live.ahead.number if number is None else number)
            self.back[session] = None

    def live(self, session: Session) -> None:
        """It was offered everything that was routed."""
        if not session.standing.ahead:
            self.back[session] = None
            self.catch_up(session)

    def forget(self, session: Session) -> None:
        """It is behind, or its client has left, or it is ahead."""
        self.back.pop(session, None)
        self._later.pop(session, None)

    def catch_up(self, session: Session) -> None:
        """Let the session go ahead, if it has taken everything that was routed: it is handed what
        was not routed yet."""
        if session not in self.back or session in self._later or not session.supply.may_go_ahead:
            return
        if not self._live.ahead.parts:
            self._go_ahead(session, [], 0)
            return
        if session.durable and len(self._live.ahead.parts) > PARTS_MAX:
            return
        now_us = self._log.time.aged_us()
        through = self._live.through
        outgoing: list[Outgoing] = []
        for part in self._live.ahead.parts:
            for message in part.later(session.standing.handed_through):
                if 0 < message.offset <= through:
                    continue
                if message.has_expired(now_us) and message.expires_at_us != message.published_at_us:
                    self._counters.dropped["expired"] += 1
                elif (grant := session.grants.as_it_comes(message)) is not None:
                    outgoing.append((message, grant))
        outgoing = readable(outgoing, session.grants.rights)
        self._go_ahead(session, outgoing, size_of(outgoing))

    def rights_changed(self, *, limited: bool) -> None:
        """Other topics may be read from here on; `limited`: and maybe not all by everybody. What
        waits for a turn of the loop comes when it is logged, as far as it may be read then."""
        self._routes.rights_changed(limited=limited)
        self._later.clear()

    def _go_ahead(self, session: Session, outgoing: list[Outgoing], size: int) -> None:
        """It is handed all that it lacks, if it can take it."""
        self._count(outgoing, size)
        if self._subscribers.hand_on(session, outgoing) and session in self.back:
            session.standing.go_ahead()
            self.forget(session)
            if outgoing and session.durable:
                self._log.changed_with_qos0(session)

    def _count(self, outgoing: Sequence[Outgoing], size: int) -> None:
        """These are about to be sent."""
        sent = self._sent
        if not sent:
            asyncio.get_running_loop().call_soon(sent.clear)
        before = sent[-1] if sent else 0
        sent.append(before + WAKE_MESSAGES + len(outgoing) + (size >> 10))

    def _next_turn(self) -> None:
        """A new turn of the loop: those for whom the last one had no time."""
        for session in [*self._later]:
            if self._sent and self._sent[-1] >= AT_ONCE_MAX:
                asyncio.get_running_loop().call_soon(self._next_turn)
                break
            runs = self._later.pop(session, [])
            if session in self.back and session.supply.may_go_ahead:
                outgoing = [*chain.from_iterable(runs)]
                self._go_ahead(session, outgoing, size_of(outgoing))

    def give_up(self, part: HandedOn) -> None:
        """These will not be logged: whoever waits for that does not get them. (P5)"""
        for session, (outgoing, _) in route(part.messages, self._routes.of).items():
            standing = session.standing
            if session.attached and not standing.ahead and session not in self._later:
                later = {id(message) for message in part.later(standing.handed_through)}
                missed = sum([id(message) in later for message, _ in outgoing])
                if missed:
                    self._counters.dropped[TOO_SLOW] += missed

    # Routing what is committed

    def route(self, batch: Sequence[Message]) -> Mapping[Session, Routed]:
        """What each session gets of a batch, without what it was handed already."""
        first, last = batch[0].offset, batch[-1].offset
        oldest = self._live.ahead.parts[0]
        if oldest.first <= first and last <= oldest.last and not self.back:
            return {}
        parts = [p for p in self._live.ahead.parts if p.first <= last and p.last >= first]
        if not parts:
            return route(batch, self._routes.of)
        routed: dict[Session, Routed] = {}
        begin = 0
        for part in parts:
            end = bisect_left(batch, part.first, lo=begin, key=_offset_of)
            if end > begin:
                _add(routed, route(batch[begin:end], self._routes.of))
            begin = bisect_right(batch, part.last, lo=end, key=_offset_of)
            if self.back:
                _add(routed, self._to_those_back(part, batch[end:begin]))
        if begin < len(batch):
            _add(routed, route(batch[begin:], self._routes.of))
        return routed

    def _to_those_back(
        self, part: HandedOn, messages: Sequence[Message]
    ) -> Mapping[Session, Routed]:
        """What sessions that are not ahead get of these messages of a part."""
        routed: dict[Session, Routed] = {}
        by_number: dict[int, set[Session]] = {}
        for session in self.back:
            by_number.setdefault(session.standing.handed_through, set()).add(session)
        for number, sessions in by_number.items():
            if later := part.later(number):
                begin = bisect_left(messages, later[0].offset, key=_offset_of)
                _add(routed, route(messages[begin:], self._only(sessions)))
        for session in routed:
            self._later.pop(session, None)
        return routed

    def _only(self, sessions: set[Session]) -> Callable[[str], Routes]:
        """The routes of a topic that lead to these."""
        known: dict[str, Routes] = {}

        def routes_of(topic: str) -> Routes:
            routes = known.get(topic)
            if routes is None:
                found = self._routes.of(topic)
                routes = known[topic] = tuple([r for r in found if r[0] in sessions])
            return routes

        return routes_of


def _add(routed: dict[Session, Routed], more: Mapping[Session, Routed]) -> None:
    for session, (outgoing, size) in more.items():
        if session in routed:
            before, its_size = routed[session]
            outgoing, size = [*before, *outgoing], its_size + size
        routed[session] = outgoing, size
