"""Where a replay begins and ends: from the words of a SUBSCRIBE to offsets of the log.

User Properties `from` (or `stream-offset`) and `until` of the SUBSCRIBE speak for all its filters,
a filter prefix `$replay/<spec>/` for its own. Clients subscribe again at every reconnect, so `from`
counts only for a subscription that is new, unless `from-mode` is `always`. What the properties
cannot mean is an application's own and ignored; what the prefix or `stream-offset` cannot mean is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broker.documents import SubscriptionDocument
from broker.errors import ReplaySpecInvalid, SharedSubscriptionsNotSupported
from broker.message import Offset, WallUs
from broker.mqtt.packets import Subscribe
from broker.replay.finding import begin_after
from broker.replay.spec import AtOffset, AtTime, Latest, Point, parse, parse_point, split_filter
from broker.session.session import Session
from broker.store import Store
from broker.topics import REPLAY_PREFIX, is_shared

STREAM_OFFSET = "stream-offset"
"""The User Property of EMQX's clients for what `from` is here."""
TIME_DIGITS_MIN = 13
"""Of epoch milliseconds."""
SHOWN_MAX = 40
"""Characters of a User Property that a SUBACK repeats."""


def words(packet: Subscribe, now_us: WallUs) -> tuple[dict[str, str], str]:
    """The User Properties that place a replay, and what is to be said of those that do not.

    Applications have properties of these names, too: a value that is no place in the log is none of
    ours, and the subscription is granted without it.
    """
    given = dict(packet.user_properties)
    alias = given.pop(STREAM_OFFSET, None)
    start, until = given.get("from"), given.get("until")
    if start is None and alias is not None:
        start = given["from"] = _as_from(alias)
    elif start is not None and not _is_understood(parse, start, now_us):
        del given["from"]
        given.pop("until", None)
        return given, f"{shown('from', start)} is no place in the log: live only"
    if until is not None and not _is_understood(parse_point, until, now_us):
        del given["until"]
        instead = "live only" if start is None else "without an end"
        return given, f"{shown('until', until)} is no place in the log: {instead}"
    return given, ""


def _as_from(stream_offset: str) -> str:
    """As EMQX has it, a number is an offset or a time; so large an offset no log has. No other
    application has this property: what it cannot mean is refused."""
    is_time = len(stream_offset) >= TIME_DIGITS_MIN and stream_offset.isdecimal()
    return f"@{stream_offset}" if is_time else stream_offset


def shown(key: str, value: str) -> str:
    """A User Property, as a Reason String may repeat it."""
    value = value[:SHOWN_MAX]
    return f"{key}={value if value.isprintable() else ascii(value)[1:-1]}"


def _is_understood(parse_word: Callable[[str, int], object], value: str, now_us: WallUs) -> bool:
    try:
        parse_word(value, now_us)
    except ReplaySpecInvalid:
        return False
    return True


def asked_for(packet: Subscribe, words: Mapping[str, str]) -> bool:
    """Whether any of its filters is to be replayed."""
    return (
        "from" in words
        or "until" in words
        or any(request.filter.startswith(REPLAY_PREFIX) for request in packet.requests)
    )


def kept_as(topic_filter: str) -> str:
    """The filter under which a subscription to `topic_filter` is kept: without `$replay/<spec>/`.
    So a client can unsubscribe by the words with which it subscribed."""
    try:
        prefixed = split_filter(topic_filter)
    except ReplaySpecInvalid:
        return topic_filter
    return topic_filter if prefixed is None else prefixed[1]


def validate(topic_filter: str, now_us: WallUs) -> None:
    """Raises what `place` raises for a filter that cannot be replayed, whoever asks for it."""
    prefixed = split_filter(topic_filter)
    if prefixed is not None:
        spec, inner = prefixed
        _refuse_shared(inner)
        parse(spec, now_us)


def _refuse_shared(topic_filter: str) -> None:
    if is_shared(topic_filter):
        raise SharedSubscriptionsNotSupported("a Shared Subscription cannot be replayed")


async def place(
    store: Store,
    session: Session,
    subscription: SubscriptionDocument,
    words: Mapping[str, str],
    now_us: WallUs,
    here: Offset,
) -> None:
    """Give the subscription its start and its end, as its filter and the User Properties say.

    Raises ReplaySpecInvalid, SharedSubscriptionsNotSupported, StoreError.

    `here` is the newest offset that came before the SUBSCRIBE: that is `latest`. A subscription
    with an end never waits for the future: it ends there at the latest.
    """
    spec = words.get("from", "latest")
    prefixed = split_filter(subscription.filter)
    if prefixed is not None:
        spec, subscription.filter = prefixed
    _refuse_shared(subscription.filter)
    span = parse(spec, now_us)
    until: Point | None = span.end
    if "until" in words:
        until = parse_point(words["until"], now_us)
    existing = session.subscriptions.get(subscription.filter)
    if existing is not None and words.get("from-mode") != "always":
        subscription.start_offset = existing.start_offset
        subscription.until_offset = existing.until_offset
        subscription.replaying = existing.replaying
        return
    filters = [subscription.filter]
    subscription.start_offset = await begin_after(
        store, span.start, filters, here=here, cursor=session.cursor()
    )
    subscription.until_offset = None if until is None else await _end(store, until, here)
    subscription.replaying = True


async def group_begins(
    store: Store, topic_filter: str, words: Mapping[str, str], now_us: WallUs, here: Offset
) -> Offset:
    """The offset after which a group of this filter begins, if it is new. Raises as `place`: it has
    no end, and the prefix is not for it."""
    span = parse(words.get("from", "latest"), now_us)
    if span.end is not None or "until" in words:
        raise SharedSubscriptionsNotSupported("a Shared Subscription has no end")
    return await begin_after(store, span.start, [topic_filter], here=here, cursor=here)


async def _end(store: Store, end: Point, here: Offset) -> Offset:
    """The last offset that belongs to it."""
    match end:
        case Latest():
            return here
        case AtOffset(offset):
            last = offset
        case AtTime(time_us):
            last = await store.last_before(time_us)
    return min(last, here)
