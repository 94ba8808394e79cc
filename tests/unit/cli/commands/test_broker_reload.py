"""`pubsub broker reload`: says what is in force now, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            {"changed": [], "restart": [], "doubts": []},
            "read again; in force now: nothing new\n",
        ),
        (
            {"changed": ["a", "b"], "restart": ["port"], "doubts": ["c.crt: has expired"]},
            "read again; in force now: a, b\n"
            "in force only after a restart: port\n"
            "careful clients will not connect: c.crt: has expired\n",
        ),
    ],
)
def test_what_the_broker_answers_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: dict[str, list[str]],
    said: str,
) -> None:
    asked: list[tuple[object, ...]] = []

    def request(*question: object) -> dict[str, list[str]]:
        asked.append(question)
        return answer

    monkeypatch.setattr("cli.operate.admin.request", request)
    app(["broker", "reload", "--data-dir", "d"], standalone_mode=False)
    assert asked == [("POST", "/reload", Path("d"))]
    assert capsys.readouterr().err == said
