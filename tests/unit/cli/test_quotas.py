"""`pubsub quota`: what the broker is asked, and how its answer is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.security.quotas import LIMITS
from cli.quotas import HEADINGS, ls, put, remove

Asked = list[tuple[object, ...]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked: Asked = []

    def request(*arguments: object) -> dict[str, object]:
        asked.append(arguments)
        limits = {**dict.fromkeys(LIMITS), "sessions": 2000}
        return {"quotas": [{"kind": "user", "name": "ann", **limits}]}

    monkeypatch.setattr("cli.quotas.request", request)
    return asked


def test_every_limit_has_a_column() -> None:
    assert tuple(HEADINGS) == LIMITS


def test_what_is_given_is_set_and_nothing_else(asked: Asked, tmp_path: Path) -> None:
    put(tmp_path, "ann", {"connections": 1, "groups": None}, role=False)
    remove(tmp_path, "standard", role=True)
    assert asked == [
        ("POST", "/quotas/set", tmp_path, {"kind": "user", "name": "ann", "connections": "1"}),
        ("POST", "/quotas/rm", tmp_path, {"kind": "role", "name": "standard"}),
    ]


def test_a_limit_that_is_not_set_is_a_dash(
    asked: Asked, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ls(tmp_path, as_json=False)
    assert capfd.readouterr().out == "ann\tuser\t-\t2000\t-\t-\t-\t-\t-\n"
    ls(tmp_path, as_json=True)
    assert '"sessions":2000,"groups":null' in capfd.readouterr().out
