"""What is said about a measurement, to people and to programs."""

from __future__ import annotations

import pytest

from cli.bench.connection import Loop
from cli.bench.measurement import Measurement, Options
from cli.bench.packets import Shape
from cli.bench.report import Result, describe, record, report
from cli.net.address import Address
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.interrupt import Interrupt


def measurement(loop: Loop, qos: int = 1, subscribers: int = 1) -> Measurement:
    """One that took 2 s to publish and 4 s to deliver."""
    options = Options(
        address=Address(),
        client_id="b",
        topic="t",
        qos=qos,
        size_bytes=1 << 20,
        publishers=2,
        subscribers=subscribers,
        window=20,
        rate_per_s=0,
        messages=100,
        seconds=None,
        backlog=False,
        json=False,
    )
    run = Measurement(options, Shape("t", qos, options.size_bytes), loop, Interrupt())
    run.publishing_s, run.delivering_s = 2.0, 4.0
    return run


def result(run: Measurement, lost: int = 0, problems: tuple[str, ...] = ()) -> Result:
    acked = 90 if run.options.qos else None
    received = 1200 if run.options.subscribers else None
    return Result(100, acked, received, lost, 0, 50.0, acked and 45.0, received and 300.0, problems)


def test_people_get_a_line_for_each_count_and_a_histogram_for_each_latency(loop: Loop) -> None:
    run = measurement(loop)
    run.latency.add(9, 80)
    run.latency.add(150, 20)
    assert describe(run, result(run, lost=3)).splitlines() == [
        "2 publishers to 1 subscriber, QoS 1, 1,048,576 bytes, window 20, as fast as possible",
        "",
        "sent                   100          50/s      50.0 MiB/s      2.00 s",
        "acknowledged            90          45/s      45.0 MiB/s      2.00 s",
        "delivered            1,200         300/s     300.0 MiB/s      4.00 s",
        "lost                     3",
        "",
        "latency of delivery, ms: p50 0.01  p90 0.15  p99 0.15  p99.9 0.15  max 0.15",
        "  <     0.01 ms          80  ########################################",
        "  <     0.02 ms           0",
        "  <     0.05 ms           0",
        "  <      0.1 ms           0",
        "  <      0.2 ms          20  ##########",
    ]


def test_what_was_not_measured_is_left_out_or_null(loop: Loop) -> None:
    run = measurement(loop, qos=0, subscribers=0)
    lines = describe(run, result(run)).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["sent"]
    fields = record(run, result(run))
    assert (fields["sent_messages"], fields["sent_per_s"]) == (100, 50.0)
    for name in ("acked_messages", "delivered_messages", "delivered_per_s", "delivering_s"):
        assert fields[name] is None
    assert fields["latency_ms"] is fields["latency_histogram"] is None


def test_a_measurement_that_failed_is_reported_and_then_fails(
    loop: Loop, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    run = measurement(loop)
    run.failure, run.exit_code = "connection lost", Exit.UNREACHABLE
    with pytest.raises(CommandFailed, match="connection lost") as failed:
        report(run)
    assert failed.value.code is Exit.UNREACHABLE
    assert capsysbinary.readouterr().out.startswith(b"2 publishers to 1 subscriber")
