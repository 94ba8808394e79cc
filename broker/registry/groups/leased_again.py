"""Leased again: what waits for members of groups when they may read other topics than before."""

from __future__ import annotations

from broker.registry.groups.groups import Groups


class LeasedAgain:
    """Of all groups. Rights of members are a `Watcher`'s business, not that of each group."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups

    def rights_changed(self, *, limited: bool) -> None:
        """Give back what waits for a member, so that it is leased to one that may read it."""
        members = self._groups.everybody()
        for session in [*members]:
            self._groups.stalled(session)
        for group in {group for groups in members.values() for group in groups}:
            group.rights_changed()
