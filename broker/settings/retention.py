"""Retention rules: what `[[retention]]` in the settings says, and how it is written.

    [[retention]]
    filter = "zigbee2mqtt/#"
    age = "7d"          # also "90s", "15m", "1d12h", "2w"
    bytes = "1GB"       # also "512 MiB", or a number of bytes
    count = 100_000     # messages under the filter
    keep_last = 1       # of each topic, whatever the others say

The first rule whose filter matches a topic is the one for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from broker.errors import ConfigError
from broker.plural import counted

KEYS = ("filter", "age", "bytes", "count", "keep_last", "log")
RULES_MAX = 1000
AGE_S_MIN = 1
AGE_S_MAX = 100 * 366 * 86_400
COUNT_MAX = BYTES_MAX = 1 << 62

_AGE = re.compile(r"(?:\d+[smhdw])+")
_AGE_PART = re.compile(r"(\d+)([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES = re.compile(r"(\d+(?:\.\d+)?) ?(B|[kKMGT]B|[KMGT]iB)")
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """For topics that match `filter` and no earlier rule. What is None does not limit; None of
    `filter` stands for every topic. `log=False`: their QoS 0 messages are not logged."""

    filter: str | None
    age_s: int | None = None
    bytes: int | None = None
    count: int | None = None
    keep_last: int = 0
    log: bool = True

    @property
    def limits(self) -> bool:
        """Whether anything is ever removed by it."""
        return (self.age_s, self.bytes, self.count) != (None, None, None)

    def __str__(self) -> str:
        said = [_age(self.age_s)] if self.age_s is not None else []
        said += [_size(self.bytes)] if self.bytes is not None else []
        said += [counted(self.count, "message")] if self.count is not None else []
        return ", ".join(said) or "all is kept"


def _age(seconds: int) -> str:
    """In the largest unit of which it is a whole number."""
    units = {"day": 86_400, "hour": 3_600, "minute": 60}
    for unit, length in units.items():
        if seconds and seconds % length == 0:
            return counted(seconds // length, unit)
    return counted(seconds, "second")


def _size(count: int) -> str:
    for unit, length in {"GiB": 2**30, "GB": 10**9, "MiB": 2**20, "MB": 10**6}.items():
        if count and count % length == 0:
            return f"{count // length:,} {unit}"
    return counted(count, "byte")


def rules_of(value: object) -> tuple[RetentionRule, ...]:
    """What TOML makes of the tables. Raises ConfigError."""
    if isinstance(value, tuple) and all(isinstance(rule, RetentionRule) for rule in value):
        return value
    if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
        raise ConfigError("retention", value, "must be tables: [[retention]], not [retention]")
    if len(value) > RULES_MAX:
        raise ConfigError("retention", len(value), f"may be {RULES_MAX} tables at most")
    rules = tuple(_rule(f"retention[{number}]", table) for number, table in enumerate(value, 1))
    seen: dict[str | None, int] = {}
    for number, rule in enumerate(rules, 1):
        if rule.filter in seen:
            raise ConfigError(
                f"retention[{number}].filter",
                rule.filter,
                f"is that of retention[{seen[rule.filter]}], which comes first",
            )
        seen[rule.filter] = number
    return rules


def _rule(name: str, table: Mapping[str, object]) -> RetentionRule:
    for key, value in table.items():
        if key not in KEYS:
            raise ConfigError(f"{name}.{key}", value, f"is none of {', '.join(KEYS)}")
    topic_filter = table.get("filter")
    if not isinstance(topic_filter, str) or not topic_filter:
        raise ConfigError(f"{name}.filter", topic_filter, 'must be a Topic Filter, "#" for all')
    log = table.get("log", True)
    if not isinstance(log, bool):
        raise ConfigError(f"{name}.log", log, "must be true or false")
    age, size, count = table.get("age"), table.get("bytes"), table.get("count")
    return RetentionRule(
        topic_filter,
        None if age is None else age_s(f"{name}.age", age),
        None if size is None else bytes_of(f"{name}.bytes", size),
        None if count is None else _whole(f"{name}.count", count, COUNT_MAX),
        _whole(f"{name}.keep_last", table.get("keep_last", 0), COUNT_MAX),
        log,
    )


def age_s(key: str, value: object) -> int:
    """`7d`, `1d12h` in seconds. Raises ConfigError."""
    if isinstance(value, str) and _AGE.fullmatch(value):
        seconds = sum(int(n[:18]) * _SECONDS[unit] for n, unit in _AGE_PART.findall(value))
        if AGE_S_MIN <= seconds <= AGE_S_MAX:
            return seconds
        raise ConfigError(key, value, "must be from 1 second to 100 years")
    raise ConfigError(key, value, 'must be like "90s", "15m", "12h", "7d", "1d12h" or "2w"')


def bytes_of(key: str, value: object) -> int:
    """A number of bytes, or `200MB`, `1.5 GiB`. Raises ConfigError."""
    if isinstance(value, str) and (match := _BYTES.fullmatch(value)):
        number, unit = match.groups()
        base = 1024 if "i" in unit else 1000
        value = round(float(number[:18]) * base ** _POWERS[unit.rstrip("B").rstrip("i")])
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= BYTES_MAX:
        return value
    raise ConfigError(key, value, 'must be a number of bytes, or like "500MB", "1GB" or "2GiB"')


def _whole(key: str, value: object, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise ConfigError(key, value, "must be a whole number, 0 or more")
