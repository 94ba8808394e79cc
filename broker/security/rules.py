"""Rules: what a user, or everybody with a role, may do with which topics, or may not.

- Something is allowed if some rule of the user or of its roles allows it, and none denies it. The
  order of the rules does not matter, nor which filter is narrower. What no rule names is denied.
- Every user has the role `everyone`, which allows nothing until it is given rules.
- `%u` and `%c` in a filter stand for the user and for the client identifier. A name with `+`, `#`
  or `/` matches no such rule, nor does one that begins with `$` where it would begin the filter:
  whoever may choose a name must not choose what it matches. For the same reason neither stands in a
  first level that begins with `$`.
- As in MQTT, a filter that begins with a wildcard is not for names that begin with `$`. `$#`, which
  only rules have, stands for all of these but those of `$SYS`.
- A rule is for the topic itself: `$share/<name>/F` and `$replay/<spec>/F` are checked by F, and
  `$delayed/<seconds>/T` is by T. `$dead/<group>/T` is by both: who may read T may read that too.
- The right `admin` is to administer what is of these topics, by a listener for that: subscribers,
  groups and dead letters whose every topic one rule allows and none denies. `admin #` without any
  denial is everything: users, rules, settings, the broker itself. Administration has no client
  identifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from broker.documents import RuleDocument
from broker.errors import CommandInvalid, TopicFilterInvalid
from broker.security.names import ADMIN, STANDARD
from broker.security.overlap import ANY_LEVEL, OTHER_LEVEL, Levels, common, covers, levels_of, names
from broker.topics import (
    DEAD,
    SYS,
    TopicTree,
    has_control_character,
    refuse_words,
    validate_filter,
)

EVERY_OTHER = "$#"
DECIDED_MAX = 200_000
DECIDED_LENGTH_MAX = 16 << 20
"""Answers that are remembered, of all users together, and the characters of their topics: about
40 MB, and 20 ms to forget."""
EVERYTHING = "#"
"""To administer: also what is of no topic."""
_PLACEHOLDER = re.compile("%[uc]")
_DEAD_PREFIX = f"{DEAD}/"


class Right(StrEnum):
    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    READ_HISTORY = "read-history"
    ADMINISTER = "admin"


class Holder(NamedTuple):
    """Whose rules they are: a user's, or those of all who have a role."""

    name: str
    is_role: bool = False

    def __str__(self) -> str:
        return f"{'role' if self.is_role else 'user'} {self.name}"


EVERYONE = Holder("everyone", is_role=True)
"""The role that every user has, `anonymous` too."""


@dataclass(slots=True, frozen=True)
class Rule:
    holder: Holder
    allow: bool
    right: Right
    filter: str

    @property
    def of_client(self) -> bool:
        """Whether it depends on the client identifier."""
        return "%c" in self.filter

    @property
    def of_user(self) -> bool:
        """Whether it depends on the name of the user."""
        return "%u" in self.filter

    def __str__(self) -> str:
        return f"{'allow' if self.allow else 'deny'} {self.right} {self.filter}"


def rule_of(document: RuleDocument) -> Rule:
    holder = Holder(document.name, document.is_role)
    return Rule(holder, document.allow, Right(document.access), document.filter)


def document_of(rule: Rule) -> RuleDocument:
    name, is_role = rule.holder
    return RuleDocument(name, is_role, rule.allow, str(rule.right), rule.filter)


class Verdict(NamedTuple):
    """`allowed`: None if no rule says anything, which is a no. `rule` decided; of a Topic Filter
    all of which several deny together, these `beside` it."""

    allowed: bool | None
    rule: Rule | None
    beside: tuple[Rule, ...] = ()


SILENCE = Verdict(None, None)
Answers = dict[Right, dict[str, Verdict]]
"""By Topic Name."""


def _built_in(role: str, *rights: tuple[Right, str]) -> tuple[Rule, ...]:
    return tuple([Rule(Holder(role, is_role=True), True, *right) for right in rights])


BUILT_IN: dict[str, tuple[Rule, ...]] = {
    STANDARD: _built_in(
        STANDARD,
        (Right.PUBLISH, "#"),
        (Right.PUBLISH, EVERY_OTHER),
        (Right.PUBLISH, f"{SYS}/broker/connection/%c/state"),
        (Right.SUBSCRIBE, "#"),
        (Right.SUBSCRIBE, EVERY_OTHER),
        (Right.SUBSCRIBE, f"{SYS}/#"),
    ),
    ADMIN: _built_in(
        ADMIN,
        *[(right, name) for right in Right for name in ("#", EVERY_OTHER, f"{SYS}/#")],
    ),
}
"""The rules that these roles have, whatever others they are given. A bridge says on its own topic
below `$SYS` whether it is connected."""


def validate(rule: Rule) -> None:
    """Raises CommandInvalid: the filter is none, or not one for rules."""
    topic_filter = rule.filter
    if rule.right is Right.ADMINISTER and rule.of_client:
        raise CommandInvalid("who administers has no client identifier: %c stands for nothing")
    if topic_filter == EVERY_OTHER:
        return
    if _names_lead_below_dollar(topic_filter):
        raise CommandInvalid("a name cannot choose what is in a level that begins with $")
    try:
        refuse_words(topic_filter, "a rule")
        validate_filter(_PLACEHOLDER.sub("x", topic_filter))
    except TopicFilterInvalid as error:
        raise CommandInvalid(error.reason) from None
    if has_control_character(topic_filter):
        raise CommandInvalid("the filter has a control character", "leave it out")


def filled(topic_filter: str, user: str, client_id: str) -> str | None:
    """The filter with the names in place of `%u` and `%c`; None: it matches nothing."""
    if "%" not in topic_filter:
        return topic_filter
    if _names_lead_below_dollar(topic_filter):
        return None
    names = {"%u": user, "%c": client_id}
    for placeholder in set(_PLACEHOLDER.findall(topic_filter)):
        name = names[placeholder]
        leads = topic_filter.startswith(placeholder)
        if not name or not {*"+#/"}.isdisjoint(name) or (leads and name.startswith("$")):
            return None
    replaced = _PLACEHOLDER.sub(lambda found: names[found[0]], topic_filter)
    try:
        validate_filter(replaced)
    except TopicFilterInvalid:
        return None
    return replaced


def _names_lead_below_dollar(topic_filter: str) -> bool:
    """Whether a placeholder is in the first level, which begins with `$`."""
    first = topic_filter.partition("/")[0]
    return first.startswith("$") and _PLACEHOLDER.search(first) is not None


class Decided:
    """What rules have answered, remembered for all that share this: when it is too much, it is
    forgotten."""

    def __init__(self) -> None:
        self._of: dict[int, Answers] = {}
        """By the identity of each."""
        self._count = self._length = 0

    def add(self, of: Answers, right: Right, topic: str, verdict: Verdict) -> None:
        """Remember it in `of`."""
        if self._count >= DECIDED_MAX or self._length + len(topic) > DECIDED_LENGTH_MAX:
            for answers in self._of.values():
                for topics in answers.values():
                    topics.clear()
            self._of.clear()
            self._count = self._length = 0
        self._of[id(of)] = of
        self._count += 1
        self._length += len(topic)
        of[right][topic] = verdict


class Rules:
    """Those that count for somebody, with their filters filled."""

    def __init__(
        self, rules: Iterable[Rule], user: str, client_id: str = "", decided: Decided | None = None
    ) -> None:
        self._trees: dict[tuple[Right, bool], TopicTree[Rule, Rule]] = {}
        self._lists: dict[tuple[Right, bool], list[tuple[Levels, Rule]]] = {}
        self._remembered = decided or Decided()
        self._decided: Answers = {right: {} for right in Right}
        self.count = 0
        for rule in rules:
            topic_filter = filled(rule.filter, user, client_id)
            if topic_filter is not None:
                self.count += 1
                kind = rule.right, rule.allow
                self._lists.setdefault(kind, []).append((levels_of(topic_filter), rule))
                tree = self._trees.get(kind)
                if tree is None:
                    tree = self._trees[kind] = TopicTree()
                tree.add(topic_filter, rule, rule)

    def verdict(self, right: Right, topic: str) -> Verdict:
        """What they say of a Topic Name."""
        verdict = self._decided[right].get(topic)
        if verdict is None:
            verdict = self.decide(right, topic)
            self._remembered.add(self._decided, right, topic, verdict)
        return verdict

    def denies(self, right: Right) -> bool:
        """Whether any of them denies any of this right."""
        return (right, False) in self._trees

    def listed(self, right: Right, *, allow: bool) -> Sequence[tuple[Levels, Rule]]:
        return self._lists.get((right, allow), ())

    def decide(self, right: Right, topic: str) -> Verdict:
        """As `verdict`, and nothing is remembered."""
        topics = [topic]
        if topic.startswith(_DEAD_PREFIX) and (inner := topic.split("/", 2)[2:]) != [""]:
            topics += inner
        for allow in (False, True):
            if (tree := self._trees.get((right, allow))) is None:
                continue
            for each in topics:
                if rule := self._first(tree, each):
                    return Verdict(allow, rule)
        return SILENCE

    def _first(self, tree: TopicTree[Rule, Rule], topic: str) -> Rule | None:
        matching = tree.match(topic)
        if not matching and topic[0] == "$" and not f"{topic}/".startswith(f"{SYS}/"):
            matching = tree.match(EVERY_OTHER)
        return matching[0] if matching else None


def verdict_of_filter(of: Sequence[Rules], right: Right, topic_filter: str) -> Verdict:
    """Whether these together allow something of a Topic Filter: a name that matches it, that some
    rule allows and none denies."""
    asked = levels_of(topic_filter)
    denies = [*_listed(of, right, allow=False)]
    for wide, deny in denies:
        if _covers(wide, asked):
            return Verdict(False, deny)
    exact = {len(levels) for levels, _ in denies if levels[-1] != "#"}
    lengths = {n + beside for n in exact for beside in (-2, 0, 2)}  # Of dead letters, too.
    denied: dict[Rule, None] = {}
    tried: set[str] = set()
    for before, part in _parts(asked):
        for levels, _ in _listed(of, right, allow=True):
            if (shared := _common(levels, part, is_inner=bool(before))) is None:
                continue
            for name in names(shared, lengths):
                whole = "/".join((*before, *name))
                if whole in tried:
                    continue
                tried.add(whole)
                verdict = _together([rules.decide(right, whole) for rules in of])
                if verdict.allowed:
                    return verdict
                if verdict.rule is not None:
                    denied[verdict.rule] = None
    if not denied:
        return SILENCE
    first, *others = denied
    return Verdict(False, first, tuple(others))


def verdict_of_all(of: Sequence[Rules], right: Right, topic_filter: str) -> Verdict:
    """Whether one of these allows all of a Topic Filter, and none denies anything of it. EVERYTHING
    is denied by whatever denies anything."""
    asked = levels_of(topic_filter)
    parts = [*_parts(asked)]
    for levels, deny in _listed(of, right, allow=False):
        if topic_filter == EVERYTHING or any(
            _common(levels, part, is_inner=bool(before)) is not None for before, part in parts
        ):
            return Verdict(False, deny)
    wholes = [asked, *[part for _, part in parts[1:2] if part[0] not in ("+", "#")]]
    for levels, allow in _listed(of, right, allow=True):
        if any(_covers(levels, whole) for whole in wholes):
            return Verdict(True, allow)
    return SILENCE


def _parts(asked: Levels) -> Iterable[tuple[Levels, Levels]]:
    """A filter; and of a filter of dead letters what it says of their own topics, too, with what
    comes before that."""
    yield (), asked
    if asked[0] == DEAD and len(asked) > 1:
        group, inner = asked[1], asked[2:] or (("#",) if asked[1] == "#" else ())
        before = DEAD, ANY_LEVEL if group in ("+", "#") else group
        if inner:
            yield before, inner
        if inner and inner[0] in ("+", "#"):  # Its topics are also such as `#` is not for.
            yield (), (*before, OTHER_LEVEL, *(inner[1:] if inner[0] == "+" else inner))


def _together(verdicts: Sequence[Verdict]) -> Verdict:
    """A denial wins."""
    for allowed in (False, True):
        for verdict in verdicts:
            if verdict.allowed is allowed:
                return verdict
    return SILENCE


def _listed(of: Sequence[Rules], right: Right, *, allow: bool) -> Iterable[tuple[Levels, Rule]]:
    for rules in of:
        yield from rules.listed(right, allow=allow)


_EVERY_OTHER = levels_of(EVERY_OTHER)


def _is_every_other(levels: Levels) -> bool:
    """Whether all names that match are among those that `$#` stands for."""
    return levels[0].startswith("$") and levels[0] != SYS


def _common(rule: Levels, asked: Levels, *, is_inner: bool) -> Levels | None:
    if rule != _EVERY_OTHER:
        return common(rule, asked, is_inner=is_inner)
    if is_inner and asked[0] in ("+", "#"):
        return OTHER_LEVEL, *(asked[1:] if asked[0] == "+" else asked)
    return asked if _is_every_other(asked) else None


def _covers(rule: Levels, asked: Levels) -> bool:
    if rule == _EVERY_OTHER:
        return _is_every_other(asked)
    return covers(rule, asked)
