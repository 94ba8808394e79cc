"""Retention rules: how they are written, and what is wrong with those that are not."""

from __future__ import annotations

import tomllib

import pytest

from broker.errors import ConfigError
from broker.settings.retention import RULES_MAX, RetentionRule, rules_of

WHOLE = """
[[retention]]
filter = "zigbee2mqtt/#"
age = "7d"
bytes = "1GB"
count = 100_000
keep_last = 1
[[retention]]
filter = "#"
log = false
"""


def test_what_toml_says() -> None:
    assert rules_of(tomllib.loads(WHOLE)["retention"]) == (
        RetentionRule("zigbee2mqtt/#", 7 * 86_400, 10**9, 100_000, 1),
        RetentionRule("#", log=False),
    )


def test_a_rule_without_limits_keeps_everything() -> None:
    assert not RetentionRule("#", keep_last=3).limits
    assert RetentionRule("#", bytes=0).limits
    assert str(RetentionRule("#")) == "all is kept"


def test_a_rule_says_what_it_keeps_in_the_units_that_a_person_wrote() -> None:
    assert str(RetentionRule("#", 60, 5000, 7)) == "1 minute, 5,000 bytes, 7 messages"
    assert str(RetentionRule(None, 30 * 86_400, 10 * 2**30)) == "30 days, 10 GiB"
    assert str(RetentionRule("a", 5 * 3_600, 3 * 10**9, 1)) == "5 hours, 3 GB, 1 message"
    assert str(RetentionRule("a", 61, 64 * 2**20)) == "61 seconds, 64 MiB"
    assert str(RetentionRule("a", 0, 500 * 10**6)) == "0 seconds, 500 MB"
    assert str(RetentionRule("a", bytes=0)) == "0 bytes"


@pytest.mark.parametrize(
    ("age", "seconds"),
    [("90s", 90), ("15m", 900), ("12h", 43_200), ("1d12h", 129_600), ("2w", 14 * 86_400)],
)
def test_an_age(age: str, seconds: int) -> None:
    assert rules_of([{"filter": "#", "age": age}])[0].age_s == seconds


@pytest.mark.parametrize(
    ("size", "count"),
    [(5, 5), ("1GB", 10**9), ("1.5 kB", 1500), ("2GiB", 2 << 30), ("0B", 0), ("1 TB", 10**12)],
)
def test_a_size(size: object, count: int) -> None:
    assert rules_of([{"filter": "#", "bytes": size}])[0].bytes == count


@pytest.mark.parametrize(
    ("value", "key", "says"),
    [
        ({"filter": "#"}, "retention", "must be tables: [[retention]], not [retention]"),
        ([1], "retention", "must be tables"),
        ([{"filter": "#"}] * (RULES_MAX + 1), "retention", "may be 1000 tables at most"),
        ([{}], "retention[1].filter", 'must be a Topic Filter, "#" for all'),
        ([{"filter": "a", "days": 3}], "retention[1].days", "is none of filter, age"),
        ([{"filter": "a", "age": "7 days"}], "retention[1].age", 'must be like "90s"'),
        ([{"filter": "a", "age": 7}], "retention[1].age", 'must be like "90s"'),
        ([{"filter": "a", "age": "0s"}], "retention[1].age", "from 1 second to 100 years"),
        ([{"filter": "a", "age": f"{10**40}w"}], "retention[1].age", "from 1 second"),
        ([{"filter": "a", "bytes": "1 Gb"}], "retention[1].bytes", "must be a number of bytes"),
        ([{"filter": "a", "bytes": -1}], "retention[1].bytes", "must be a number of bytes"),
        ([{"filter": "a", "bytes": True}], "retention[1].bytes", "must be a number of bytes"),
        ([{"filter": "a", "count": 1.5}], "retention[1].count", "must be a whole number"),
        ([{"filter": "a", "keep_last": "1"}], "retention[1].keep_last", "must be a whole number"),
        ([{"filter": "a", "log": 0}], "retention[1].log", "must be true or false"),
        (
            [{"filter": "a"}, {"filter": "b"}, {"filter": "a"}],
            "retention[3].filter",
            "is that of retention[1], which comes first",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(value: object, key: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        rules_of(value)
    assert raised.value.key == key
    assert says in raised.value.remedy
