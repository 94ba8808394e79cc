from __future__ import annotations

import pytest

from broker.log.publishers import HeldPublishers
from tests.support.publishers import Publisher


def test_each_is_held_once_and_released_once() -> None:
    publishers, (a, b, c) = HeldPublishers(), (Publisher(), Publisher(), Publisher())
    publishers.hold([a, b])
    publishers.hold([b, c])
    publishers.release()
    publishers.release()
    assert a.calls == b.calls == c.calls == ["hold", "release"]


def test_one_that_fails_keeps_no_other_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistake(reason: str) -> None:
        raise ValueError("mistake")

    broken, sound = Publisher(), Publisher()
    monkeypatch.setattr(broken, "pause_reading", mistake)
    monkeypatch.setattr(broken, "resume_reading", mistake)
    publishers = HeldPublishers()
    publishers.hold([broken, sound])
    publishers.release()
    assert (broken.calls, sound.calls) == (["failed", "failed"], ["hold", "release"])
