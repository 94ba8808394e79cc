"""`pubsub quota`: from words to what is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from cli.main import app


def test_each_option_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[object, ...]] = []
    monkeypatch.setattr("cli.operate.quotas.put", lambda *a, role: done.append((*a, role)))
    monkeypatch.setattr("cli.operate.quotas.remove", lambda *a, role: done.append((*a, role)))
    monkeypatch.setattr("cli.operate.quotas.ls", lambda *a, as_json: done.append((*a, as_json)))
    options = (
        "--connections 1 --sessions 2 --groups 3 --subscriptions 4 --packet-bytes 256"
        " --publish-rate 6 --publish-bytes 7 --retained 8"
    )
    app(["quota", "set", "standard", "--role", *options.split()], standalone_mode=False)
    app(["quota", "rm", "ann", "--data-dir", "d"], standalone_mode=False)
    app(["quota", "ls", "--json"], standalone_mode=False)
    limits = {
        "connections": 1,
        "sessions": 2,
        "groups": 3,
        "subscriptions": 4,
        "packet_bytes": 256,
        "publish_per_s": 6,
        "publish_bytes_per_s": 7,
        "retained": 8,
    }
    assert done == [
        (Path("data"), "standard", limits, True),
        (Path("d"), "ann", False),
        (Path("data"), True),
    ]


def test_a_quota_without_a_limit_is_a_usage_error() -> None:
    with pytest.raises(typer.BadParameter, match="a limit is missing"):
        app(["quota", "set", "ann"], standalone_mode=False)
