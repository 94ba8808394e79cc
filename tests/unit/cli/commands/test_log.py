"""`pubsub log`: which part of the history is shown, from its options."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

from cli.log.history import Options
from cli.main import app
from cli.net.address import Address


@pytest.fixture(autouse=True)
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    shown: list[Options] = []
    monkeypatch.setattr("cli.log.show_log.show", shown.append)
    return shown


def log(arguments: str = "") -> None:
    app(["log", *shlex.split(arguments)], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        ("", 20),
        ("-n 3", 3),
        ("-n 0", None),
        ("--from 1", None),
        ("--until 9", None),
        ("--from 1 -n 3", 3),
    ],
)
def test_how_many_of_the_newest(shown: list[Options], arguments: str, last: int | None) -> None:
    log(arguments)
    assert shown[0].last == last


def test_the_options_say_which_and_how(shown: list[Options]) -> None:
    log("a 'b/#' --data-dir d --from 1 --until 9 --publisher p --grep 'x|y' --json")
    log("-f -F '%t %p'")
    assert shown[0] == Options(
        data_dir=Path("d"),
        filters=("a", "b/#"),
        last=None,
        start="1",
        until="9",
        publisher="p",
        grep="x|y",
        json=True,
    )
    assert shown[1] == Options(
        data_dir=Path("data"), filters=(), last=20, follow=True, format="%t %p"
    )


def test_the_last_of_each_topic_is_a_question_of_its_own(
    shown: list[Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    latest: list[Options] = []
    monkeypatch.setattr("cli.log.show_topics.show_latest", latest.append)
    log("a/# --latest --as-of @11:00 --json")
    assert (latest[0].filters, latest[0].as_of, latest[0].json) == (("a/#",), "@11:00", True)
    assert shown == []


@pytest.mark.parametrize(
    "arguments", ["--as-of today", "--latest -n 3", "--latest -f", "--latest --grep x"]
)
def test_what_does_not_go_with_the_last_of_each_topic(shown: list[Options], arguments: str) -> None:
    with pytest.raises(typer.BadParameter, match="--latest"):
        log(arguments)
    assert shown == []


def test_a_broker_may_be_named(shown: list[Options]) -> None:
    log("a -h broker.example -p 1884")
    assert shown[0].address == Address(host="broker.example", port=1884)
    with pytest.raises(typer.BadParameter, match="--latest"):
        log("a -p 1884 --latest")


@pytest.mark.parametrize("two", ["--json --csv", "--csv -F %p", "--count --json"])
def test_there_is_one_way_to_write(shown: list[Options], two: str) -> None:
    with pytest.raises(typer.BadParameter, match="use one of"):
        log(two)
    assert shown == []


@pytest.mark.parametrize("other", ["--count", "--until 9"])
def test_what_does_not_end_has_no_end_and_no_count(shown: list[Options], other: str) -> None:
    with pytest.raises(typer.BadParameter, match="--follow does not end"):
        log(f"--follow {other}")
    assert shown == []
