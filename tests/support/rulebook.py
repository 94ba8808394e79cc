"""The rules of one user, as they are now."""

from __future__ import annotations

from collections.abc import Sequence

from broker.security.rules import Holder, Right, Rule, Rules


class Rulebook:
    """A `Book` of rights."""

    def __init__(self, *texts: str) -> None:
        self.version = 0
        self.open = False
        self.asked = 0
        self.write(*texts)

    def write(self, *texts: str) -> None:
        """Of `allow publish a/#`: all that there are from now on."""
        self.version += 1
        self.written = [
            Rule(Holder("anna"), effect == "allow", Right(right), topic_filter)
            for effect, right, topic_filter in map(str.split, texts)
        ]

    def rules(
        self, user: str, roles: Sequence[str] | None, client_id: str
    ) -> tuple[Rules, Rules | None] | None:
        self.asked += 1
        if self.open:
            return None
        own = [rule for rule in self.written if rule.of_client]
        shared = Rules([rule for rule in self.written if not rule.of_client], user)
        return shared, Rules(own, user, client_id) if own else None
