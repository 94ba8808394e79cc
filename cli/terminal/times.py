"""TIME as people say it, and as the commands say it back.

    11:00   11:00:30   today   yesterday   tomorrow 08:00   2026-11-28   2026-11-28 11:00   -1h30m

A time without a zone is local, as `pubsub log` shows times on a terminal; everything that
`broker/replay/spec.py` takes is a TIME here, too. The broker gets them with their zone.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from broker.errors import ReplaySpecInvalid
from broker.message import rfc3339
from broker.replay import spec
from cli.terminal.failure import CommandFailed, Exit

_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?")
_DAYS = {"yesterday": -1, "today": 0, "tomorrow": 1}
_WITHOUT_ZONE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?", re.IGNORECASE
)
_AGO = re.compile(
    r"-(?=.)(?:(\d{1,6})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?:in)?)?(?:(\d{1,9})s(?:ec)?)?",
    re.ASCII,
)
_AGO_UNITS_S = (604_800, 86_400, 3_600, 60, 1)
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|min|h|d|)", re.ASCII)
_UNITS_S = {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400}
_EPOCH_DIGITS_MIN = 6
"""Shorter numbers are no time of any log, but parts of one: `@11:00:12:00` is 11:00 to 12:00."""

HELP = (
    "TIME is like 11:00, yesterday, 'tomorrow 08:00', 2026-11-28, '2026-11-28 11:00' (local"
    " without a zone),"
    " 2026-11-28T10:00:00Z, 1741948200 (epoch) or -10min, -1d2h (ago)"
)


def time_us(text: str, now_us: int) -> int | None:
    """Microseconds since the epoch, not below 0; None: `text` is no TIME."""
    now = datetime.fromtimestamp(now_us / 1e6)
    moment: datetime | None = None
    if (of_day := _of_day(text)) is not None:
        moment = datetime(now.year, now.month, now.day) + of_day
    elif _WITHOUT_ZONE.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.upper())
        except ValueError:
            return None
    elif ago := _AGO.fullmatch(text):
        counts = (int(count or 0) for count in ago.groups())
        ago_s = sum(count * unit for count, unit in zip(counts, _AGO_UNITS_S, strict=True))
        return max(0, now_us - ago_s * 1_000_000)
    if moment is not None:
        try:
            seconds = int(moment.replace(microsecond=0).timestamp())
            return max(0, seconds * 1_000_000 + moment.microsecond)
        except (OverflowError, OSError, ValueError):
            return None
    if text.isdigit() and len(text) < _EPOCH_DIGITS_MIN:
        return None
    try:
        match spec.parse(f"@{text}", now_us):
            case spec.Span(spec.AtTime(found), None):
                return found
    except ReplaySpecInvalid:
        pass
    return None


def _of_day(text: str) -> timedelta | None:
    """Of `tomorrow`, `11:00` or `yesterday 11:00`: how long after midnight that is; None: neither
    is meant."""
    day, _, clock = text.partition(" ") if text.split(" ")[0] in _DAYS else ("today", "", text)
    after = timedelta(days=_DAYS[day])
    if text == day:
        return after
    if not _CLOCK.fullmatch(clock):
        return None
    hour, minute, *second = clock.split(":")
    seconds = float(second[0]) if second else 0
    return after + timedelta(hours=int(hour), minutes=int(minute), seconds=seconds)


def required_us(option: str, text: str, now_us: int) -> int:
    """As `time_us`, with or without `@`. Raises CommandFailed (2)."""
    found = time_us(text.removeprefix("@"), now_us)
    if found is None:
        raise CommandFailed(f"{option} {text!r} is no TIME", HELP, Exit.USAGE)
    return found


def seconds(text: str) -> float | None:
    """Of a duration like `500ms`, `5s`, `5` or `2m`; None: it is none."""
    found = _DURATION.fullmatch(text)
    return float(found[1]) * _UNITS_S[found[2]] if found else None


def local(time_us: int) -> str:
    """`2026-11-28 11:00:02.131984 +01:00`, as the clock on the wall here has it."""
    moment = datetime.fromtimestamp(time_us // 1_000_000).astimezone()
    text = moment.strftime("%Y-%m-%d %H:%M:%S")
    if fraction := time_us % 1_000_000:
        text += f".{fraction:06d}"
    zone = moment.strftime("%z")
    return f"{text} {'UTC' if zone == '+0000' else f'{zone[:3]}:{zone[3:]}'}"


def canonical(option: str, text: str, now_us: int) -> tuple[str, str]:
    """A SPEC as the broker takes it, and what is understood by it ("" where it says so itself).

    Words that only a TIME can be need no `@`. What is the same everywhere goes to the broker as it
    is: its clock says when `-1h` is. Raises CommandFailed (2): it is no SPEC.
    """
    times = _times(text, now_us)
    try:
        span = spec.parse(text, now_us)
    except ReplaySpecInvalid as error:
        if times is None:
            forms = f"use earliest, latest, N (offset), -N (last N), N:M, @TIME or @T1:T2; {HELP}"
            is_time = time_us(text, now_us) is not None or _times(f"@{text}", now_us) is not None
            if is_time:
                forms = f"a time is written with @ before it: {option} @{text}"
            elif _AGO.fullmatch(f"-{text}"):
                forms = f"so long ago is written with - before it: {option} -{text}"
            raise CommandFailed(
                f"{option} {text!r} is no place in the log", forms, Exit.USAGE
            ) from error
    else:
        if times is None:
            clock = _CLOCK.fullmatch(text) and isinstance(span.end, spec.AtOffset)
            return text, f"offsets {text}; a time of day is @{text}" if clock else ""
    start, end = times
    if end is not None and end <= start:
        raise CommandFailed(
            f"{option} {text!r} ends before it begins: {local(start)} to {local(end)}",
            code=Exit.USAGE,
        )
    understood = local(start) if end is None else f"{local(start)} to {local(end)}"
    if re.match(r"@-\d", text) and _is_same_everywhere(text, times, now_us):
        return text, understood
    places = [f"{rfc3339(at_us)}" for at_us in times if at_us is not None]
    return f"@{':'.join(places)}", understood


def _is_same_everywhere(text: str, times: tuple[int, int | None], now_us: int) -> bool:
    try:
        span = spec.parse(text, now_us)
    except ReplaySpecInvalid:
        return False
    end = None if times[1] is None else spec.AtTime(times[1])
    return span == spec.Span(spec.AtTime(times[0]), end) and not _WITHOUT_ZONE.search(text)


def _times(text: str, now_us: int) -> tuple[int, int | None] | None:
    """One TIME or two; None: something else is meant."""
    if not text.startswith("@"):
        plain = text.split(" ")[0] in _DAYS or _WITHOUT_ZONE.fullmatch(text) or _AGO.fullmatch(text)
        found = time_us(text, now_us) if plain else None
        return None if found is None else (found, None)
    text = text[1:]
    if (found := time_us(text, now_us)) is not None:
        return found, None
    for colon in re.finditer(r"\.\.|:", text):
        start, end = time_us(text[: colon.start()], now_us), time_us(text[colon.end() :], now_us)
        if start is not None and end is not None:
            return start, end
    return None
