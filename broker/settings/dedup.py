"""How long the keys are kept of messages that are to be stored once: tables `[[dedup]]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from broker.errors import ConfigError, TopicFilterInvalid
from broker.settings.bounds import DAY_S
from broker.topics import validate_filter

DURATION = re.compile(
    r"(?=.)(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII
)


def duration_s(text: str) -> int | None:
    """Seconds in a text like `90s`, `15m` or `1d2h`; None: it is no duration."""
    if (found := DURATION.fullmatch(text)) is None:
        return None
    counts = (int(count or 0) for count in found.groups())
    return sum(count * unit for count, unit in zip(counts, (DAY_S, 3600, 60, 1), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class DedupRule:
    """A `[[dedup]]`: the topics that match `filter` keep the keys of their messages this long."""

    filter: str
    window: str = "10m"

    def __post_init__(self) -> None:
        try:
            validate_filter(self.filter)
        except TopicFilterInvalid as error:
            raise ConfigError("dedup.filter", self.filter, str(error)) from error
        if not self.window_s:
            raise ConfigError("dedup.window", self.window, "must be like 90s, 15m or 1d2h")

    @property
    def window_s(self) -> int:
        return duration_s(self.window) or 0
