"""Replay specs: times written in any form, alone or in pairs, mean what was written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ReplaySpecInvalid
from broker.replay.spec import AtTime, Span, parse

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW_US = 1_800_000_000_000_000
Written = tuple[str, int]


@st.composite
def written_times(draw: st.DrawFn) -> Written:
    """A TIME in one of its forms and the microsecond it means."""
    zone = timezone(timedelta(minutes=draw(st.integers(-14 * 60, 14 * 60))))
    moment = draw(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)))
    form = draw(st.sampled_from(["zone", "Z", "seconds", "minutes", "day", "s", "ms", "us", "ago"]))
    if form in ("seconds", "s", "ago"):
        moment = moment.replace(microsecond=0)
    elif form == "minutes":
        moment = moment.replace(second=0, microsecond=0)
    elif form == "day":
        moment = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    elif form == "ms":
        moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    aware = moment.replace(tzinfo=UTC)
    time_us = (aware - EPOCH) // timedelta(microseconds=1)
    match form:
        case "zone":
            return aware.astimezone(zone).isoformat(), time_us
        case "Z":
            return moment.isoformat() + "Z", time_us
        case "seconds" | "minutes":
            return moment.isoformat(draw(st.sampled_from("T ")), form), time_us
        case "day":
            return moment.date().isoformat(), time_us
        case "ago":
            time_us = min(time_us, NOW_US)
            hours, seconds = divmod((NOW_US - time_us) // 1_000_000, 3600)
            return f"-{hours}h{seconds}s", time_us
    return str(time_us // {"s": 1_000_000, "ms": 1_000, "us": 1}[form]), time_us


@given(written_times())
def test_a_time_means_what_was_written(time: Written) -> None:
    assert parse("@" + time[0], NOW_US) == Span(AtTime(time[1]))


@given(written_times(), written_times())
def test_of_two_times_the_right_colon_is_found(one: Written, other: Written) -> None:
    (start, start_us), (end, end_us) = sorted((one, other), key=lambda time: time[1])
    if start_us < end_us:
        assert parse(f"@{start}:{end}", NOW_US) == Span(AtTime(start_us), AtTime(end_us))


@given(st.text() | st.from_regex(r"@?[-0-9:T Zdhms.+]{0,30}", fullmatch=True))
def test_any_text_is_a_span_or_refused(spec: str) -> None:
    try:
        span = parse(spec, NOW_US)
    except ReplaySpecInvalid:
        return
    for point in (span.start, span.end):
        if isinstance(point, AtTime):
            assert 0 <= point.time_us < 2**63
