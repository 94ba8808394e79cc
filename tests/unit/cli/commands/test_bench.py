"""`pubsub bench`: which load is made, from its options."""

from __future__ import annotations

import shlex

import pytest
import typer

from cli.bench.measurement import Options
from cli.main import app
from cli.net.address import Address


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """What was measured; each is reported before the next."""
    measured: list[Options] = []

    def measure(options: Options) -> int:
        measured.append(options)
        return len(measured)

    def report(run: int) -> None:
        assert run == len(measured)

    monkeypatch.setattr("cli.bench.measurement.measure", measure)
    monkeypatch.setattr("cli.bench.report.report", report)
    return measured


def bench(arguments: str = "") -> None:
    app(["bench", *shlex.split(arguments)], standalone_mode=False)


def test_without_options_it_is_five_seconds_from_one_to_one(measured: list[Options]) -> None:
    bench()
    bench()
    first, second = measured
    assert (first.address, first.qos, first.size_bytes, first.window) == (Address(), 1, 128, 1000)
    assert (first.publishers, first.subscribers, first.rate_per_s) == (1, 1, 0)
    assert (first.messages, first.seconds, first.backlog, first.json) == (None, 5.0, False, False)
    assert first.client_id != second.client_id
    assert first.topic != second.topic


def test_the_options_say_which_load(measured: list[Options]) -> None:
    bench(
        "-h h -p 1 -i me -u u -P p -t a -q 2 -n 100 --size 10 --publishers 2 --subscribers 3 "
        "--window 5 --backlog --json"
    )
    assert measured[0] == Options(
        address=Address(host="h", port=1, username="u", password="p"),
        client_id="me",
        topic="a",
        qos=2,
        size_bytes=10,
        publishers=2,
        subscribers=3,
        window=5,
        rate_per_s=0,
        messages=100,
        seconds=None,
        backlog=True,
        json=True,
    )


def test_messages_and_seconds_are_both_ends(measured: list[Options]) -> None:
    bench("-n 100 --seconds 2 --rate 10")
    assert (measured[0].messages, measured[0].seconds, measured[0].rate_per_s) == (100, 2.0, 10.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--backlog -q 0", "--backlog needs"),
        ("--backlog --subscribers 0", "--backlog needs"),
        ("--backlog --rate 5", "--backlog needs"),
        ("-n 1 --publishers 2", "less than a message for each publisher"),
    ],
)
def test_what_contradicts_is_a_usage_error(
    measured: list[Options], arguments: str, says: str
) -> None:
    with pytest.raises(typer.BadParameter, match=says):
        bench(arguments)
    assert measured == []
