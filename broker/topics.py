"""Topic Names and Topic Filters (MQTT 4.7): what is legal, what matches, and who is subscribed.

- A Topic Name says where one message goes; a Topic Filter says which names are wanted. Levels are
  separated by `/`, and a level may be empty.
- `#` stands for any number of levels, none included, and comes last; `+` stands for exactly one.
- A name that begins with `$` is not for filters that begin with a wildcard. [MQTT-4.7.2-1]

Everything but the `validate_` and `refuse_` functions and `parse_shared` takes legal names and
filters for granted; what comes from outside goes through those first. Refusals name no topic: it
may be 64 KB.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterator
from typing import Generic, TypeVar

from broker.errors import TopicFilterInvalid, TopicNameInvalid, TopicNameRefused

BYTES_MAX = 65_535
"""The longest MQTT string: its length has two bytes. [MQTT-4.7.3-3]"""
LEVELS_MAX = 200
SYS = "$SYS"
"""The first level of the topics under which the broker tells about itself."""
DEAD = "$dead"
"""The first level of the topics on which dead letters are told: `$dead/<group>/<topic>`."""
BRIDGE_STATE = re.compile(r"\$SYS/broker/connection/.+/state")
"""Where a bridge says whether it is connected, by a retained message and by its Will."""
SHARE_PREFIX = "$share/"
"""Begins the Topic Filter of a Shared Subscription. [MQTT-4.8.2-1]"""
REPLAY_PREFIX = "$replay/"
"""Begins a Topic Filter that names its place in the log (`replay.spec`)."""
DELAYED_PREFIX = "$delayed/"
"""Begins the name to which a message is published that is to come later: `parse_delayed`."""
WORD_PREFIXES = SHARE_PREFIX, REPLAY_PREFIX, DELAYED_PREFIX
"""Words before a topic or a filter, and no part of it."""
RESERVED = frozenset({SYS, DEAD, SHARE_PREFIX.rstrip("/"), REPLAY_PREFIX.rstrip("/")})
"""First levels to which no client publishes."""
DELAY_MAX_S = 0xFFFF_FFFF
REPLAY_ENDED = f"{REPLAY_PREFIX}ended"
"""Topic on which a client hears that a replay with an end is over; payload: its Topic Filter."""

CONTROL_CHARACTER = "control character in a topic"
"""Why a message is dropped whose topic or Response Topic has a control character, ..."""
CONTROL_CHARACTER_IN_PROPERTY = "control character in a property"
"""... and why, if it is in its Content Type or a User Property."""

_FROM_FIRST_WILDCARD = re.compile(r"\+|/?#")
_LAST_OF_PLANES = "".join(
    chr(plane << 16 | 0xFFFE) + chr(plane << 16 | 0xFFFF) for plane in range(17)
)
_CONTROL_CHARACTERS = re.compile(f"[\0-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{_LAST_OF_PLANES}]")

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def validate_name(topic: str, *, bytes_max: int = BYTES_MAX, levels_max: int = LEVELS_MAX) -> None:
    """Raises TopicNameInvalid, saying what is wrong and what to do. [MQTT-4.7.0-1]"""
    if problem := _problem(topic, bytes_max, levels_max):
        raise TopicNameInvalid(f"Topic Name {problem}")
    if "+" in topic or "#" in topic:
        raise TopicNameInvalid("Topic Name has a wildcard: publish to a name without + and #")


def refuse_reserved(topic: str) -> None:
    """Raises TopicNameRefused for `$SYS`, `$dead`, `$replay` and all below: the broker's own; and
    for `$share`, which nobody could subscribe to. [MQTT 5, 4.7.2]

    Not for the state of a bridge: Mosquitto's publish it there, and not all say that they are one.
    Also for a name below `$delayed` that is not whole, or delays one of these.
    """
    if (delayed := parse_delayed(topic)) is not None:
        topic = delayed[1]
    first = topic.partition("/")[0]
    if first in RESERVED and not BRIDGE_STATE.fullmatch(topic):
        why = "nobody" if f"{first}/" == SHARE_PREFIX else "only the broker"
        raise TopicNameRefused(
            f"Topic Name begins with {first}: {why} publishes there",
            f"published to {first}",
        )


def parse_delayed(topic: str) -> tuple[int, str] | None:
    """The seconds and the name in `$delayed/<seconds>/<name>`, as EMQX has it; None for any other
    name. Raises TopicNameRefused."""
    if not topic.startswith(DELAYED_PREFIX):
        return None
    seconds, _, name = topic.removeprefix(DELAYED_PREFIX).partition("/")
    whole = seconds.isascii() and seconds.isdecimal() and len(seconds) <= len(str(DELAY_MAX_S))
    if not whole or int(seconds) > DELAY_MAX_S or not name or name.startswith(DELAYED_PREFIX):
        raise TopicNameRefused(
            f"Topic Name delays nothing: use {DELAYED_PREFIX}<seconds>/<name>, at most "
            f"{DELAY_MAX_S} seconds",
            f"not whole below {DELAYED_PREFIX}",
        )
    return int(seconds), name


def has_control_character(text: str) -> bool:
    """Whether there is a control character (U+0000-001F, U+007F-009F), a non-character (U+FDD0-
    FDEF, U+xxFFFE, U+xxFFFF) or half of a surrogate pair: JSON and a command line can bring one,
    and no UTF-8 can hold it.

    MQTT permits to refuse these in any text. [MQTT 5, 1.5.4] Some clients close the connection on
    which they receive them (libmosquitto), so no name or filter may have one.
    """
    return not text.isprintable() and _CONTROL_CHARACTERS.search(text) is not None


def refuse_control_characters(topic: str, name: str = "Topic Name") -> None:
    """Raises TopicNameRefused: `has_control_character`."""
    if has_control_character(topic):
        raise TopicNameRefused(
            f"{name} has a control character or non-character: leave it out", CONTROL_CHARACTER
        )


def validate_filter(
    filter: str, *, bytes_max: int = BYTES_MAX, levels_max: int = LEVELS_MAX
) -> None:
    """Raises TopicFilterInvalid, saying what is wrong and what to do. [MQTT-4.7.1-1, 4.7.1-2]"""
    if problem := _problem(filter, bytes_max, levels_max):
        raise TopicFilterInvalid(f"Topic Filter {problem}")
    if "+" in filter or "#" in filter:
        _refuse_misplaced_wildcards(filter)


def _refuse_misplaced_wildcards(filter: str) -> None:
    """In time that hardly grows with the levels: a SUBSCRIBE may have thousands of filters."""
    if filter.count("#") != (filter == "#" or filter.endswith("/#")):
        raise TopicFilterInvalid("Topic Filter has a # that is not its whole last level: use a/b/#")
    if filter.count("+") != f"/{filter}/".replace("/", "//").count("/+/"):
        raise TopicFilterInvalid("Topic Filter has a + that is not a whole level: use a/+/b")


def _problem(topic: str, bytes_max: int, levels_max: int) -> str | None:
    """What is wrong by the rules for both names and filters; None: nothing. [MQTT-4.7.3-1..3]"""
    if not topic:
        return "is empty: give it at least one character"
    if "\0" in topic:
        return "has a NUL character: leave it out"
    try:
        length = len(topic) if topic.isascii() else len(topic.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode: leave out lone surrogates"
    if length > bytes_max:
        return f"is {length} bytes long in UTF-8: use at most {bytes_max}"
    if (levels := topic.count("/") + 1) > levels_max:
        return f"has {levels} levels: use at most {levels_max}"
    return None


def is_literal(filter: str) -> bool:
    """Whether the filter has no wildcard and so matches one name, itself."""
    return "+" not in filter and "#" not in filter


def wildcard_pattern(filter: str) -> str:
    """Where its wildcards are: `/+/` for `a/+/b`. Empty: it has none.

    Of all filters with one pattern, a name matches one at most.
    """
    if is_literal(filter):
        return ""
    return "/".join([level if level in ("+", "#") else "" for level in filter.split("/")])


def literal_prefix(filter: str) -> str:
    """The beginning that all matching names share: the filter up to its first wildcard level.

    `a/+/b` gives `a/`, but `a/#` gives `a`, since it also matches `a`. A literal filter gives
    itself, a leading wildcard gives nothing.
    """
    return _FROM_FIRST_WILDCARD.split(filter, maxsplit=1)[0]


def matches(filter: str, name: str) -> bool:
    """Whether a message published to `name` is wanted by `filter`. [MQTT-4.7.1, 4.7.2]"""
    if is_literal(filter):
        return filter == name
    if name[0] == "$" and filter[0] in "+#":
        return False
    wanted, levels = filter.split("/"), name.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        del levels[len(wanted) :]
    if len(wanted) != len(levels):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=True))


def is_shared(filter: str) -> bool:
    """Whether it is the filter of a Shared Subscription; not whether it is a complete one."""
    return filter.startswith(SHARE_PREFIX)


def parse_shared(filter: str) -> tuple[str, str] | None:
    """The ShareName and the filter in `$share/<ShareName>/<filter>`; None for any other filter.

    Raises TopicFilterInvalid: the ShareName is empty or has a wildcard, or no legal filter follows
    it. [MQTT-4.8.2-1, 4.8.2-2]
    """
    if not is_shared(filter):
        return None
    share_name, _, inner = filter.removeprefix(SHARE_PREFIX).partition("/")
    if not share_name or not is_literal(share_name) or not inner:
        raise TopicFilterInvalid(
            f"Shared Subscription is incomplete: use {SHARE_PREFIX}<name>/<filter>, "
            "no + or # in the name"
        )
    _refuse_misplaced_wildcards(inner)  # The whole was held to the limits already.
    return share_name, inner


def dead_topic(group: str, topic: str) -> str:
    """Where a dead letter of this group, and of a message to this topic, is told; empty: nowhere,
    since that is no Topic Name, or the message told of a dead letter itself."""
    shared = parse_shared(group)
    assert shared is not None
    told_on = f"{DEAD}/{shared[0]}/{topic}"
    if topic.partition("/")[0] == DEAD or len(told_on.encode()) > BYTES_MAX:
        return ""
    return told_on


def refuse_words(filter: str, purpose: str) -> None:
    """Raises TopicFilterInvalid: a word like `$replay/` is before what is to be a mere filter."""
    for prefix in WORD_PREFIXES:
        if filter.startswith(prefix):
            raise TopicFilterInvalid(
                f"Topic Filter begins with {prefix}: {purpose} is for topics, so leave that out, up"
                " to the topic"
            )


class TopicTree(Generic[K, V]):
    """Topic Filters and, at each, the subscribers by key.

    A literal filter costs `match` one dict look-up, whatever else is subscribed. Wildcard filters
    are a tree of levels, walked breadth first along what the name can match, so that its cost
    depends on the filters that agree with the name so far and not on how many there are.
    """

    def __init__(self) -> None:
        self._subscribers: dict[str, dict[K, V]] = {}
        self._named: _Node[K, V] = _Node()
        """Wildcard filters that begin with a name."""
        self._leading: _Node[K, V] = _Node()
        """Wildcard filters that begin with a wildcard: not for names that begin with `$`."""
        self._length = 0

    def __len__(self) -> int:
        """How many (filter, key) pairs there are."""
        return self._length

    def filters(self) -> Collection[str]:
        """Every filter that has a subscriber, once: a live view."""
        return self._subscribers.keys()

    def add(self, filter: str, key: K, value: V) -> V | None:
        """Subscribe `key`, replacing its value at this filter. Returns the value replaced."""
        subscribers = self._subscribers.get(filter)
        if subscribers is None:
            subscribers = self._subscribers[filter] = {}
            if not is_literal(filter):
                self._link(filter, subscribers)
        self._length += key not in subscribers
        replaced = subscribers.get(key)
        subscribers[key] = value
        return replaced

    def remove(self, filter: str, key: K) -> V | None:
        """Unsubscribe `key` from this filter. Returns its value, or None if it had none."""
        subscribers = self._subscribers.get(filter)
        if subscribers is None or key not in subscribers:
            return None
        self._length -= 1
        value = subscribers.pop(key)
        if not subscribers:
            del self._subscribers[filter]
            if not is_literal(filter):
                self._unlink(filter)
        return value

    def match(self, name: str) -> list[V]:
        """The values at every filter that matches: a key comes once for each of its filters."""
        literal = self._subscribers.get(name)
        found = list(literal.values()) if literal else []
        nodes = [self._named] if name[0] == "$" else [self._named, self._leading]
        for level in name.split("/"):
            deeper: list[_Node[K, V]] = []
            for node in nodes:
                if node.at_hash is not None:
                    found += node.at_hash.values()
                if (child := node.children.get(level)) is not None:
                    deeper.append(child)
                if (child := node.children.get("+")) is not None:
                    deeper.append(child)
            if not deeper:
                return found
            nodes = deeper
        for node in nodes:
            if node.here is not None:
                found += node.here.values()
            if node.at_hash is not None:  # `a/#` matches `a` as well
                found += node.at_hash.values()
        return found

    def _link(self, filter: str, subscribers: dict[K, V]) -> None:
        *_, (node, last) = self._walk(filter)
        if last == "#":
            node.at_hash = subscribers
        else:
            node.child(last).here = subscribers

    def _unlink(self, filter: str) -> None:
        """Remove the filter, and the nodes that lead to no other filter."""
        path = list(self._walk(filter))
        node, last = path.pop()
        if last == "#":
            node.at_hash = None
        else:
            node.children[last].here = None
            path.append((node, last))
        for parent, level in reversed(path):
            if not parent.children[level].is_empty():
                return
            del parent.children[level]

    def _walk(self, filter: str) -> Iterator[tuple[_Node[K, V], str]]:
        """Each level of a wildcard filter with the node it hangs from, made where it is missing."""
        node = self._leading if filter[0] in "+#" else self._named
        *levels, last = filter.split("/")
        for level in levels:
            yield node, level
            node = node.child(level)
        yield node, last


class _Node(Generic[K, V]):
    """A place in the tree of levels: the filters that end here, and at a `#` directly below."""

    __slots__ = ("at_hash", "children", "here")

    def __init__(self) -> None:
        self.children: dict[str, _Node[K, V]] = {}
        self.here: dict[K, V] | None = None
        self.at_hash: dict[K, V] | None = None

    def child(self, level: str) -> _Node[K, V]:
        if (node := self.children.get(level)) is None:
            node = self.children[level] = _Node()
        return node

    def is_empty(self) -> bool:
        return not self.children and self.here is None and self.at_hash is None
