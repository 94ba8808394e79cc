"""What is said about a measurement: a few lines and histograms for people, or one JSON object.

There is always one result, also after Ctrl-C or when the connection broke. A result with lost or
misplaced messages says so and fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from broker.plural import counted
from cli.bench.histogram import Histogram
from cli.bench.measurement import Measurement
from cli.terminal import output
from cli.terminal.failure import CommandFailed

BAR_CHARACTERS = 40
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
LOST_REMEDY = "if the broker limits its queues, a smaller --window keeps them shorter"


def report(run: Measurement) -> None:
    """Raises CommandFailed, after the result was printed, if it is not a good one."""
    result = Result.of(run)
    if run.options.json:
        output.data(output.json_line(record(run, result)))
    else:
        output.text(describe(run, result))
    if result.problems:
        remedy = LOST_REMEDY if result.lost else ""
        raise CommandFailed("; ".join(result.problems), remedy, run.exit_code)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to. None: that was not measured."""

    sent: int
    acked: int | None
    received: int | None
    lost: int
    misplaced: int
    sent_per_s: float
    acked_per_s: float | None
    delivered_per_s: float | None
    problems: tuple[str, ...]

    @staticmethod
    def of(run: Measurement) -> Result:
        publishers, subscribers = run.publishers, run.subscribers
        qos = run.options.qos
        sent = sum(publisher.sent for publisher in publishers)
        acked = sum(publisher.acked for publisher in publishers)
        received = sum(subscriber.received_count for subscriber in subscribers)
        misplaced = sum(subscriber.misplaced for subscriber in subscribers)
        due = sum(sent if run.settled else sum(s.received_of) for s in subscribers)
        lost = due - (received - misplaced)
        problems = [run.failure] if run.failure else []
        if run.settled and qos and acked < sent:
            problems.append(f"{sent - acked:,} of {counted(sent, 'message')} not acknowledged")
        if lost:
            problems.append(f"{lost:,} of {counted(due, 'delivery', 'deliveries')} lost")
        if misplaced:
            problems.append(f"{counted(misplaced, 'message')} repeated or out of order")
        return Result(
            sent=sent,
            acked=acked if qos else None,
            received=received if subscribers else None,
            lost=lost,
            misplaced=misplaced,
            sent_per_s=rate(sent, run.publishing_s),
            acked_per_s=rate(acked, run.publishing_s) if qos else None,
            delivered_per_s=rate(received, run.delivering_s) if subscribers else None,
            problems=tuple(problems),
        )


def rate(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def record(run: Measurement, result: Result) -> dict[str, object]:
    """The result for programs: units are in the names, null is what was not measured."""
    options = run.options
    return {
        "broker": str(options.address),
        "topic": options.topic,
        "qos": options.qos,
        "size_bytes": options.size_bytes,
        "publishers": options.publishers,
        "subscribers": options.subscribers,
        "window_messages": options.window,
        "rate_per_s": options.rate_per_s or None,
        "backlog": options.backlog,
        "publishing_s": round(run.publishing_s, 6),
        "delivering_s": round(run.delivering_s, 6) if options.subscribers else None,
        "sent_messages": result.sent,
        "acked_messages": result.acked,
        "delivered_messages": result.received,
        "lost_messages": result.lost,
        "misplaced_messages": result.misplaced,
        "sent_per_s": round(result.sent_per_s, 1),
        "acked_per_s": result.acked_per_s and round(result.acked_per_s, 1),
        "delivered_per_s": result.delivered_per_s and round(result.delivered_per_s, 1),
        "latency_ms": milliseconds(run.latency),
        "latency_histogram": buckets(run.latency),
        "ack_latency_ms": milliseconds(run.ack_latency),
        "ack_latency_histogram": buckets(run.ack_latency),
        "problems": result.problems,
    }


def milliseconds(latency: Histogram) -> dict[str, float] | None:
    if not latency.count:
        return None
    quantiles = {name: latency.quantile_us(part) / 1000 for name, part in QUANTILES.items()}
    return {**quantiles, "max": latency.max_us / 1000}


def buckets(latency: Histogram) -> list[dict[str, float]] | None:
    if not latency.count:
        return None
    return [{"below_ms": bound / 1000, "messages": count} for bound, count in latency.buckets()]


def describe(run: Measurement, result: Result) -> str:
    """The result for people."""
    options = run.options
    pace = f"{options.rate_per_s:,g} messages/s" if options.rate_per_s else "as fast as possible"
    if options.backlog:
        pace += ", subscribers away meanwhile"
    publishers = plural(options.publishers, "publisher")
    lines = [
        f"{publishers} to {plural(options.subscribers, 'subscriber')}, QoS {options.qos}, "
        f"{options.size_bytes:,} bytes, window {options.window:,}, {pace}",
        "",
        figures("sent", result.sent, run.publishing_s, options.size_bytes),
    ]
    if result.acked is not None:
        lines.append(figures("acknowledged", result.acked, run.publishing_s, options.size_bytes))
    if result.received is not None:
        lines.append(figures("delivered", result.received, run.delivering_s, options.size_bytes))
        lines.append(f"{'lost':<14}{result.lost:>12,}")
    if result.misplaced:
        lines.append(f"{'misplaced':<14}{result.misplaced:>12,}")
    for name, latency in (("delivery", run.latency), ("acknowledgement", run.ack_latency)):
        if quantiles := milliseconds(latency):
            shown = "  ".join(f"{quantile} {ms:,.2f}" for quantile, ms in quantiles.items())
            lines += ["", f"latency of {name}, ms: {shown}", *bars(latency)]
    return "\n".join(lines) + "\n"


def figures(name: str, count: int, seconds: float, size_bytes: int) -> str:
    per_s = rate(count, seconds)
    mib_per_s = per_s * size_bytes / (1 << 20)
    return f"{name:<14}{count:>12,}{per_s:>12,.0f}/s{mib_per_s:>10,.1f} MiB/s{seconds:>10,.2f} s"


def bars(latency: Histogram) -> list[str]:
    rows = list(latency.buckets())
    most = max(count for _, count in rows)
    return [
        f"  < {bound / 1000:>8,g} ms{count:>12,}  "
        f"{'#' * math.ceil(count * BAR_CHARACTERS / most)}".rstrip()
        for bound, count in rows
    ]


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
