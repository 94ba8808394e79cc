"""`pubsub cluster`: from words to what is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.store.shared.access import Access
from cli.main import app

STORE = "nats://a:1,b:2"


def test_each_command_asks_for_what_its_words_say(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[object, ...]] = []
    monkeypatch.setattr("cli.operate.cluster.up", lambda *a: done.append(a))
    monkeypatch.setattr("cli.operate.cluster.init", lambda *a: done.append(a))
    monkeypatch.setattr(
        "cli.operate.cluster.status", lambda *a, as_json: done.append((*a, as_json))
    )
    monkeypatch.setattr("cli.operate.cluster.config", lambda *a: done.append(("config", *a)))
    for words in (
        ["up"],
        ["up", "-d", "x", "-p", "5000"],
        ["init", "--store", STORE],
        ["init", "--store", STORE, "--replicas", "1", "--bytes-max", "1000"],
        ["status", "--store", STORE, "--json", "--store-credentials", "c", "--store-ca", "a"],
        ["config"],
        ["config", "more"],
    ):
        app(["cluster", *words], standalone_mode=False)
    assert done == [
        (Path("data/cluster"), 4222),
        (Path("x"), 5000),
        (STORE, 3, None, Access()),
        (STORE, 1, 1000, Access()),
        (STORE, Access(Path("c"), Path("a")), True),
        ("config", "log"),
        ("config", "more"),
    ]
