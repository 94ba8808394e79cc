"""Permitted: what of a SUBSCRIBE its client may have, and what is said of a missing right."""

from __future__ import annotations

from broker.replay.placing import kept_as
from broker.security.rights import Rights
from broker.security.rules import Right

FORBIDDEN = "no right to publish"
"""Why a message counts as dropped that its client may not publish, ..."""
NO_RIGHT = f"the right to {Right.PUBLISH} is missing"
"""... and what it hears."""
RULES_PER_FILTER = 50
"""So many rules are looked through for a filter in the time that one is granted in, or two."""


def weight(rights: Rights) -> int:
    """What a Topic Filter takes to be judged, in filters of a client without rules."""
    return 1 + rights.rule_count // RULES_PER_FILTER


def missing_right(rights: Rights, topic_filter: str, *, replays: bool = False) -> str:
    """The right without which nothing of this filter may be read; empty: something may be. Each
    message is asked for again when it comes. Raises TopicFilterInvalid."""
    if not rights.limited:
        return ""
    inner = kept_as(topic_filter)
    if not rights.may_subscribe(inner):
        return Right.SUBSCRIBE
    if (replays or inner != topic_filter) and not rights.may_read_history(inner):
        return Right.READ_HISTORY
    return ""
