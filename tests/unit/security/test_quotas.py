"""Quotas: which limit counts, and how fast is too fast."""

from __future__ import annotations

import pytest

from broker.errors import CommandRefused
from broker.security.quotas import UNLIMITED, Pace, Quota, effective, validate


def test_what_the_user_has_goes_before_its_roles_and_of_these_the_largest_counts() -> None:
    own = Quota(connections=1)
    roles = [Quota(connections=5, sessions=3), Quota(sessions=7), UNLIMITED]
    assert effective(own, roles) == Quota(connections=1, sessions=7)
    assert effective(UNLIMITED, []) == UNLIMITED


@pytest.mark.parametrize("limit", [0, -1, 10**12 + 1])
def test_a_limit_that_is_none_is_refused(limit: int) -> None:
    validate(Quota(groups=1, packet_bytes=10**12))
    with pytest.raises(CommandRefused, match="packet_bytes must be 256 to"):
        validate(Quota(packet_bytes=255))
    with pytest.raises(CommandRefused, match="publish_per_s must be 1 to"):
        validate(Quota(publish_per_s=limit))


def test_a_seconds_worth_may_come_at_once_and_then_as_much_as_the_pace_is() -> None:
    pace = Pace(Quota(publish_per_s=10))
    pace.take(10, 0, 100.0)
    assert pace.ahead_s(100.0) == 0
    pace.take(5, 0, 100.0)
    assert pace.ahead_s(100.0) == pytest.approx(0.5)
    assert pace.ahead_s(100.5) == pytest.approx(0.0)
    pace.take(10, 0, 1000.0)
    assert pace.ahead_s(1000.0) == 0, "what was not used before does not add up"


def test_of_messages_and_bytes_what_takes_longer_counts() -> None:
    pace = Pace(Quota(publish_per_s=10, publish_bytes_per_s=100))
    pace.take(1, 400, 0.0)
    assert pace.ahead_s(0.0) == pytest.approx(3.0)
    pace.take(20, 1, 0.0)
    assert pace.ahead_s(0.0) == pytest.approx(5.0)
