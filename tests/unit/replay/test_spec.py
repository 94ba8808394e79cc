"""Replay specs: every form, at the place in time it means, and what is refused."""

from __future__ import annotations

import pytest

from broker.errors import PeerError, ReplaySpecInvalid
from broker.message import Offset
from broker.replay.spec import (
    AtOffset,
    AtTime,
    Earliest,
    Last,
    Latest,
    Resume,
    Span,
    parse,
    parse_point,
    split_filter,
)

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
HALF_PAST_TEN_US = 1_741_948_200 * SECOND_US  # 2025-03-14T10:30:00Z
MIDNIGHT_US = HALF_PAST_TEN_US - 10 * HOUR_US - HOUR_US // 2
NOW_US = HALF_PAST_TEN_US + DAY_US


@pytest.mark.parametrize(
    ("spec", "span"),
    [
        ("earliest", Span(Earliest())),
        ("latest", Span(Latest())),
        ("resume", Span(Resume())),
        ("0", Span(AtOffset(Offset(0)))),
        ("1234", Span(AtOffset(Offset(1234)))),
        ("9223372036854775807", Span(AtOffset(Offset(2**63 - 1)))),
        ("-10", Span(Last(10))),
        ("5:9", Span(AtOffset(Offset(5)), AtOffset(Offset(9)))),
        ("5:5", Span(AtOffset(Offset(5)), AtOffset(Offset(5)))),
    ],
)
def test_words_and_offsets(spec: str, span: Span) -> None:
    assert parse(spec, NOW_US) == span


@pytest.mark.parametrize(
    ("time", "time_us"),
    [
        ("2025-03-14T10:30:00Z", HALF_PAST_TEN_US),
        ("2025-03-14t10:30:00z", HALF_PAST_TEN_US),
        ("2025-03-14 10:30:00", HALF_PAST_TEN_US),
        ("2025-03-14T10:30", HALF_PAST_TEN_US),
        ("2025-03-14T10:30:00.25Z", HALF_PAST_TEN_US + SECOND_US // 4),
        ("2025-03-14T10:30:00.000001999Z", HALF_PAST_TEN_US + 1),
        ("2025-03-14T12:30:00+02:00", HALF_PAST_TEN_US),
        ("2025-03-14T05:00:00-05:30", HALF_PAST_TEN_US),
        ("2025-03-14", MIDNIGHT_US),
        ("1741948200", HALF_PAST_TEN_US),
        ("1741948200123", HALF_PAST_TEN_US + 123_000),
        ("1741948200123456", HALF_PAST_TEN_US + 123_456),
        ("99999999999", 99_999_999_999 * SECOND_US),
        ("100000000000", 100_000_000_000 * 1000),
        ("100000000000000", 100_000_000_000_000),
        ("0", 0),
        ("1969-12-31", 0),
        ("-90s", NOW_US - 90 * SECOND_US),
        ("-15m", NOW_US - 900 * SECOND_US),
        ("-1h", NOW_US - HOUR_US),
        ("-1d2h", NOW_US - 26 * HOUR_US),
        ("-1d2h3m4s", NOW_US - 26 * HOUR_US - 184 * SECOND_US),
        ("-0s", NOW_US),
        ("-999999999d", 0),
    ],
)
def test_times(time: str, time_us: int) -> None:
    assert parse("@" + time, NOW_US) == Span(AtTime(time_us))


@pytest.mark.parametrize(
    ("spec", "start_us", "end_us"),
    [
        ("@2025-03-14:2025-03-15", MIDNIGHT_US, MIDNIGHT_US + DAY_US),
        ("@2025-03-14T10:30:00Z:2025-03-15", HALF_PAST_TEN_US, MIDNIGHT_US + DAY_US),
        ("@2025-03-14T10:30:2025-03-14T10:30:01", HALF_PAST_TEN_US, HALF_PAST_TEN_US + SECOND_US),
        (
            "@2025-03-14T12:30:00+02:00:2025-03-14T10:30:00-01:00",
            HALF_PAST_TEN_US,
            HALF_PAST_TEN_US + HOUR_US,
        ),
        ("@1741948200:1741948201000", HALF_PAST_TEN_US, HALF_PAST_TEN_US + SECOND_US),
        ("@-2h:-1h", NOW_US - 2 * HOUR_US, NOW_US - HOUR_US),
        ("@2025-03-14 10:30:-1h", HALF_PAST_TEN_US, NOW_US - HOUR_US),
    ],
)
def test_ranges_of_time(spec: str, start_us: int, end_us: int) -> None:
    assert parse(spec, NOW_US) == Span(AtTime(start_us), AtTime(end_us))


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "newest",
        "EARLIEST",
        " 5",
        "+5",
        "5:",
        ":5",
        "5:4",
        "-5:-1",
        "-",
        "-0",
        "--5",
        "1.5",
        "٣",
        "9223372036854775808",
        "9" * 30,
        "9" * 5000,
        "@",
        "@now",
        "@1h",
        "@-",
        "@-5",
        "@-1h1d",
        "@-٣h",
        "@2025-02-30",
        "@2025-03-14T25:00:00Z",
        "@2025-03-14T10:30:00+25:00",
        "@2025-03-14T10",
        "@2025-W11-5",
        "@100000000000000000",
        "@-1h:-2h",
        "@-1h:-1h",
        "@2025-03-15:2025-03-14",
        "@2025-03-14:",
        "@:2025-03-14",
        "@" + ":" * 60_000,
    ],
)
def test_what_is_refused_is_told_the_forms(spec: str) -> None:
    with pytest.raises(ReplaySpecInvalid, match=r"earliest, latest, resume.*2025-03-14T10:30:00Z"):
        parse(spec, NOW_US)
    assert issubclass(ReplaySpecInvalid, PeerError)
    assert ReplaySpecInvalid.reason_code == 0x83


def test_a_point_is_one_place() -> None:
    assert parse_point("7", NOW_US) == AtOffset(Offset(7))
    assert parse_point("@-1h", NOW_US) == AtTime(NOW_US - HOUR_US)
    assert parse_point("latest", NOW_US) == Latest()


@pytest.mark.parametrize("spec", ["earliest", "resume", "-5", "1:2", "@-2h:-1h", "tomorrow"])
def test_a_span_is_no_point(spec: str) -> None:
    with pytest.raises(ReplaySpecInvalid, match="use"):
        parse_point(spec, NOW_US)


def test_a_filter_may_carry_the_spec() -> None:
    assert split_filter("$replay/-10/home/+/#") == ("-10", "home/+/#")
    assert split_filter("$replay/@2025-03-14 10:30:00//") == ("@2025-03-14 10:30:00", "/")
    assert split_filter("home/#") is None
    assert split_filter("$replays/-10/home") is None


@pytest.mark.parametrize("filter", ["$replay/", "$replay/-10", "$replay/-10/", "$replay//home"])
def test_a_replay_filter_has_both_parts(filter: str) -> None:
    with pytest.raises(ReplaySpecInvalid, match=r"\$replay/<spec>/<filter>"):
        split_filter(filter)
