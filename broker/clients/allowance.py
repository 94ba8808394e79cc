"""Allowance: how many subscriptions, and patterns of wildcards in these, one session may have."""

from __future__ import annotations

from collections.abc import Callable, Collection

from broker.config import Config
from broker.plural import counted
from broker.security.quotas import UNLIMITED, Quota
from broker.session.session import Session
from broker.topics import is_shared


class Allowance:
    def __init__(self, config: Config) -> None:
        self._config = config
        self.quota_of: Callable[[str], Quota] = lambda user: UNLIMITED

    def too_many(
        self,
        session: Session,
        topic_filter: str,
        made: Collection[str] = (),
    ) -> str:
        """What it has as many of as it may, for one more filter; empty: of nothing. `made`: those
        that are just being added."""
        subscriptions, most = session.subscriptions, self._config.subscriptions_per_session_max
        most = min(most, self.quota_of(session.tally.user).subscriptions or most)
        if topic_filter in subscriptions or topic_filter in made:
            return ""
        if len(subscriptions) + len(made) >= most:
            new = [filter for filter in made if filter not in subscriptions]
            if len(subscriptions) + len(new) >= most:
                return counted(most, "subscription")
        most = self._config.wildcard_patterns_per_session_max
        if not is_shared(topic_filter) and session.grants.has_patterns(most, topic_filter, made):
            return counted(most, "pattern of wildcards", "patterns of wildcards")
        return ""
