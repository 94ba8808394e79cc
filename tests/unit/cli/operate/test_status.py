"""What a broker tells about itself, as a person reads it at night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from broker.config import Config
from broker.errors import StoreBusy, StoreFull
from broker.log.waiting import WHY
from broker.server.server import Server
from cli.operate.status import COUNTED, lines, troubles

WELL: dict[str, Any] = {
    "version": "0.1.0",
    "pid": 17,
    "address": "127.0.0.1:9000",
    "uptime_s": 11_000.0,
    "data_dir": "/data",
    "high_watermark": 4711,
    "log_start": 12,
    "waiting": {"messages": 0, "sessions": 0, "disk": None},
    "damaged_offsets": 0,
    "retention": {"rules": {"all else": "30 days, 10 GiB"}, "damaged_segments": 0},
    "disk": {"free": 83_023_585_280, "least": 200_000_000, "low": False},
    "connections": 3,
    "connections_max": 19_900,
    "sessions_durable": 1,
    "groups": 0,
    "messages_in": 444_915,
    "messages_out": 1_000,
    "delayed_messages": 0,
    "dropped": {},
}
ROOMY = 80


def told(**changed: Any) -> list[str]:
    return list(lines(WELL | changed, ROOMY))


def test_of_a_broker_that_is_well_it_says_what_it_does_and_nothing_that_is_zero() -> None:
    assert told(**dict.fromkeys(COUNTED, 0)) == [
        "pubsub 0.1.0 on 127.0.0.1:9000, pid 17, up 3h",
        "clients     3 of 19,900 connections; 1 durable session, 0 groups",
        "messages    444,915 came, 1,000 were sent since the start",
        "log         offsets 12 to 4,711 in /data",
        "kept        30 days, 10 GiB",
        "disk        83 GB free; below 200 MB no messages are taken",
    ]


def test_how_busy_it_is_now_is_told_beside_what_it_did_since_the_start() -> None:
    said = told(messages_in_per_s=1234.5, messages_out_per_s=0)
    assert said[2:4] == [
        "messages    444,915 came, 1,000 were sent since the start",
        "            1,234.5/s came, 0.0/s were sent in the last minute",
    ]


def test_every_listener_is_named_and_a_certificate_that_expires() -> None:
    where = ["127.0.0.1:9000", "[::1]:8883", "/run/pubsub/pubsub.sock"]
    said = told(listeners=where, certificates={"/c/server.crt": "certificate has expired"})
    assert said[:4] == [
        "pubsub 0.1.0 on 127.0.0.1:9000, [::1]:8883, /run/pubsub/pubsub.sock, pid 17, up",
        "  3h",
        "! careful clients do not connect, or soon will not: /c/server.crt: certificate",
        "  has expired; renew it",
    ]


def test_what_is_wrong_comes_first_with_what_to_do() -> None:
    full = told(
        waiting={"messages": 2, "sessions": 1, "disk": "full"},
        disk={"free": -1_818_624, "least": 629_145, "low": True},
        damaged_offsets=3,
    )
    assert full[1:5] == [
        "! the disk is full: no messages are taken until 629 kB and more are free; make",
        "  room there, then remove old messages: pubsub log trim --before SPEC",
        "! 3 messages are damaged: pubsub check says which; keep your last backup",
        "clients     3 of 19,900 connections; 1 durable session, 0 groups",
    ]
    assert "waiting     2 messages and changes of 1 session for the disk" in full
    assert "disk        0 B free; below 629 kB no messages are taken" in full


def test_each_reason_why_nothing_is_taken_is_told_as_what_it_is() -> None:
    busy, full = (
        [*troubles(WELL | {"waiting": {"disk": WHY[error]}})] for error in (StoreBusy, StoreFull)
    )
    assert busy == ["the log is locked by another program: no messages are taken until that ends"]
    assert full[0].startswith("the disk is full: ")
    (low,) = troubles(WELL | {"disk": {"low": True, "least": 200_000_000}})
    assert low.startswith("the disk is nearly full: no messages are taken until 200 MB and more")
    (taken,) = troubles(WELL | {"connections": 19_900})
    assert taken.startswith("all connections that connections_max allows are taken")
    (stuck,) = troubles(WELL | {"retention": {"damaged_segments": 1}})
    assert stuck.startswith("1 damaged part of the log cannot be removed")


def test_what_was_lost_is_counted_with_its_reason_most_first() -> None:
    lost = told(
        dropped={"damaged": 0, "expired": 2, "refused: no room on the disk": 5989},
        redeliveries=4,
        append_failures=1,
    )
    assert lost[-4:] == [
        "dropped     5,989  refused: no room on the disk",
        "            2  expired",
        "counted     1  writes of the log that failed",
        "            4  messages sent again",
    ]


def test_of_each_of_several_rules_it_says_for_which_topics_it_is() -> None:
    rules = {"debug/#": "1 day", "all else": "30 days, 10 GiB"}
    assert told(retention={"rules": rules})[4:6] == [
        "kept        debug/#: 1 day",
        "            all else: 30 days, 10 GiB",
    ]


def test_a_shared_log_and_messages_for_later_are_told() -> None:
    shared = {
        "broker": "b1",
        "other_brokers": {"b2": "h:1", "b3": ""},
        "bytes": 70,
        "bytes_max": 100,
    }
    found = told(shared_log=shared, delayed_messages=5)
    assert "shared log  as b1, with b2 (h:1), b3" in found
    assert not any(line.startswith("!") for line in found)
    nearly = [*told(shared_log={**shared, "bytes": 75})]
    assert any(line.startswith("! the shared log has 75 B of at most 100 B") for line in nearly)
    assert any("; 5 wait until they are due" in line for line in found)


def test_no_line_is_wider_than_the_terminal() -> None:
    rules = {"a long filter/of many words/" * 3: "30 days, 10 GiB", "all else": "all is kept"}
    changed = {
        "data_dir": "/srv/" + "a directory of many words/" * 8,
        "retention": {"rules": rules},
        "dropped": {"a reason " * 20: 1},
        "disk": {"free": 1, "least": 10**9, "low": True},
    }
    assert max(map(len, told(**changed))) <= ROOMY


def test_nothing_in_it_moves_the_cursor() -> None:
    evil = "\x1b[2J"
    found = told(
        version=evil, data_dir=evil, dropped={evil: 1}, waiting={"disk": evil}, address=evil
    )
    assert "\x1b" not in "".join(found)
    assert r"\x1b[2J" in found[0]


def test_a_broker_that_tells_less_or_other_figures_is_no_failure() -> None:
    assert list(lines({"figures": {"of the future": None}}, ROOMY))
    assert list(lines({"high_watermark": 0}, ROOMY))[-1].startswith("log         no messages yet")


async def test_every_figure_it_names_is_one_that_a_broker_tells(tmp_path: Path) -> None:
    server = Server(Config(port=0, data_dir=tmp_path))
    await server.start()
    try:
        assert set(WELL) | set(COUNTED) <= set(server.status())
    finally:
        await server.stop()
