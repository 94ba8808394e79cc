"""Replay specs: how a subscriber names the place in the log to begin at, and to end at.

    earliest   latest   resume     the log start, only what is new, where this subscriber stopped
    N   N:M                        from offset N, through offset M
    -N                             the last N messages that match
    @TIME   @T1:T2                 published at or after T1, before T2

TIME is RFC 3339 (seconds and zone may be left out, no zone is UTC; a date alone is its midnight),
digits since the epoch (seconds, milliseconds or microseconds, told by their magnitude), or a
duration that long ago: `-90s`, `-15m`, `-1d2h`. A range ends after it begins.

This module turns words into values; `placing.py` finds the offsets. In a Topic Filter,
`$replay/<spec>/<filter>`, a zone east of UTC cannot be written, since `+` is a wildcard: use Z.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from broker.errors import ReplaySpecInvalid
from broker.message import Offset
from broker.topics import REPLAY_PREFIX

SPEC_LENGTH_MAX = 100
OFFSET_MAX = 2**63 - 1

_FORMS = (
    "use earliest, latest, resume, N (offset), -N (last N), N:M, @TIME or @T1:T2, where TIME is "
    "like 2025-03-14T10:30:00Z, 2025-03-14, 1741948200 (epoch s, ms or us) or -1d2h (ago), "
    "and a range ends after it begins"
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MILLISECONDS_FROM = 10**11
"""Epoch times below are seconds (until the year 5138); the next 1000 times as many milliseconds."""
_MICROSECONDS_FROM = 10**14
_MICROSECONDS_TO = 10**17

_NUMBER = re.compile(r"[0-9]{1,19}")
_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?",
    re.IGNORECASE,
)
_AGO = re.compile(r"-(?=.)(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_AGO_UNITS_S = (86_400, 3_600, 60, 1)


@dataclass(frozen=True, slots=True)
class Earliest:
    """The log start."""


@dataclass(frozen=True, slots=True)
class Latest:
    """The high watermark. As a start: only new messages; as an end: only those that are there."""


@dataclass(frozen=True, slots=True)
class Resume:
    """The subscriber's own cursor."""


@dataclass(frozen=True, slots=True)
class Last:
    """As many matching messages before the high watermark."""

    count: int


@dataclass(frozen=True, slots=True)
class AtOffset:
    """As a start or as an end, this offset is included."""

    offset: Offset


@dataclass(frozen=True, slots=True)
class AtTime:
    """Published at or after as a start, before as an end, so that adjoining ranges never repeat."""

    time_us: int


Start = Earliest | Latest | Resume | Last | AtOffset | AtTime
End = AtOffset | AtTime
Point = AtOffset | AtTime | Latest


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` through `end`; without an end history goes over into what is live."""

    start: Start
    end: End | None = None


def parse(spec: str, now_us: int) -> Span:
    """What `spec` means at `now_us` (microseconds since the epoch). Raises ReplaySpecInvalid."""
    match spec:
        case "earliest":
            return Span(Earliest())
        case "latest":
            return Span(Latest())
        case "resume":
            return Span(Resume())
    if len(spec) > SPEC_LENGTH_MAX:
        raise _invalid()
    if spec.startswith("@"):
        return _parse_times(spec[1:], now_us)
    if spec.startswith("-"):
        if (count := _number(spec[1:])) == 0:
            raise _invalid()
        return Span(Last(count))
    first, is_range, last = spec.partition(":")
    start = AtOffset(Offset(_number(first)))
    if not is_range:
        return Span(start)
    end = AtOffset(Offset(_number(last)))
    if end.offset < start.offset:
        raise _invalid()
    return Span(start, end)


def parse_point(spec: str, now_us: int) -> Point:
    """One place, for `until`: an offset, `@TIME` or `latest`. Raises ReplaySpecInvalid."""
    match parse(spec, now_us):
        case Span(AtOffset() | AtTime() | Latest() as point, None):
            return point
    raise ReplaySpecInvalid("until is one place: use N (offset), @TIME or latest")


def split_filter(filter: str) -> tuple[str, str] | None:
    """The spec and the filter in `$replay/<spec>/<filter>`; None for any other filter.

    Neither is looked at yet. Raises ReplaySpecInvalid: one of them is missing.
    """
    if not filter.startswith(REPLAY_PREFIX):
        return None
    spec, _, inner = filter.removeprefix(REPLAY_PREFIX).partition("/")
    if not spec or not inner:
        raise ReplaySpecInvalid(f"replay is incomplete: use {REPLAY_PREFIX}<spec>/<filter>")
    return spec, inner


def _parse_times(text: str, now_us: int) -> Span:
    """One TIME or two. A TIME may hold colons: the one between has a TIME on either side."""
    if (time_us := _time_us(text, now_us)) is not None:
        return Span(AtTime(time_us))
    for colon in re.finditer(":", text):
        start_us = _time_us(text[: colon.start()], now_us)
        end_us = _time_us(text[colon.end() :], now_us)
        if start_us is not None and end_us is not None and start_us < end_us:
            return Span(AtTime(start_us), AtTime(end_us))
    raise _invalid()


def parse_moment(text: str) -> int | None:
    """A TIME that is no duration, in microseconds since the epoch; None: it is none."""
    return None if text.startswith("-") else _time_us(text, 0)


def _time_us(text: str, now_us: int) -> int | None:
    """Microseconds since the epoch, not below 0; None if `text` is no TIME."""
    if _NUMBER.fullmatch(text):
        return _epoch_us(int(text))
    if ago := _AGO.fullmatch(text):
        counts = (int(count or 0) for count in ago.groups())
        ago_s = sum(count * unit for count, unit in zip(counts, _AGO_UNITS_S, strict=True))
        return max(0, now_us - ago_s * 1_000_000)
    if not _DATE_TIME.fullmatch(text):
        return None
    try:
        time = datetime.fromisoformat(text.upper())
    except ValueError:  # no such day or hour
        return None
    return max(0, (time.replace(tzinfo=time.tzinfo or UTC) - _EPOCH) // _MICROSECOND)


def _epoch_us(number: int) -> int | None:
    if number < _MILLISECONDS_FROM:
        return number * 1_000_000
    if number < _MICROSECONDS_FROM:
        return number * 1_000
    return number if number < _MICROSECONDS_TO else None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or (number := int(text)) > OFFSET_MAX:
        raise _invalid()
    return number


def _invalid() -> ReplaySpecInvalid:
    return ReplaySpecInvalid(f"replay spec cannot be understood: {_FORMS}")
