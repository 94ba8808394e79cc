"""How many sessions the log keeps, and which is due next."""

from __future__ import annotations

import pytest

from broker.clock import NEVER
from broker.config import Config
from broker.errors import QuotaExceeded
from broker.message import Monotonic, Offset
from broker.registry.kept import Kept
from broker.security.quotas import UNLIMITED, Quota
from broker.session.session import Session

GROUP = "$share/workers/t"


def test_groups_and_clients_do_not_take_each_others_places() -> None:
    kept = Kept(Config(sessions_max=2, groups_max=1))
    kept.set("sub1", NEVER)
    kept.set(GROUP, NEVER)
    kept.refuse_if_full("sub2")
    with pytest.raises(QuotaExceeded, match="1 group "):
        kept.refuse_if_full("$share/workers/u")
    kept.set("sub2", NEVER)
    with pytest.raises(QuotaExceeded, match="2 sessions"):
        kept.refuse_if_full("sub3")
    assert (kept.client_count, kept.group_count, len(kept)) == (2, 1, 3)
    assert kept.remove(GROUP)
    assert not kept.remove(GROUP)
    kept.refuse_if_full(GROUP)


def test_what_was_told_of_gaps_goes_with_the_session() -> None:
    kept = Kept(Config())
    for name in ("told", "removed", "due", "nothing to tell"):
        session = Session(name, created_at_us=0, start=Offset(0), inflight_max=1)
        if name != "nothing to tell":
            session.gaps.counted([range(1, 3)])
        kept.set(name, Monotonic(1) if name == "due" else NEVER)
        kept.keep_gaps(session)
    kept.remove("removed")
    kept.take_due(Monotonic(2), 10)
    told = kept.gaps_of("told")
    assert told is not None
    assert told.counted_through == 2
    assert [kept.gaps_of(name) for name in ("removed", "due", "nothing to tell")] == [None] * 3


def test_what_is_due_is_taken_of_each_kind() -> None:
    """Groups stay: whether one ends is looked at first."""
    kept = Kept(Config())
    assert kept.soonest() is None
    for n, name in enumerate(["sub1", GROUP, "sub2", "$share/workers/u"], 1):
        kept.set(name, Monotonic(float(n)))
    assert kept.soonest() == Monotonic(1)
    assert kept.soonest(clients=False) == kept.get(GROUP) == Monotonic(2)
    assert kept.take_due(Monotonic(3.5), 2) == ["sub1", "sub2"]
    assert "sub1" not in kept
    assert kept.soonest() == Monotonic(2)
    assert kept.take_due_groups(Monotonic(3.5), 2) == [GROUP]
    assert kept.get(GROUP) == NEVER
    assert kept.soonest() == kept.get("$share/workers/u") == Monotonic(4)


def test_whether_an_absent_session_may_have_a_subscription() -> None:
    kept = Kept(Config())
    kept.set("sub1", NEVER)
    kept.set(GROUP, NEVER)
    assert sorted(kept) == [GROUP, "sub1"]
    assert not kept.absent_may_subscribe
    kept.is_absent("sub1", subscribed=False)
    assert (kept.absent_count, kept.absent_may_subscribe) == (1, False)
    kept.is_absent(GROUP)
    assert kept.absent_may_subscribe
    kept.is_not_absent(GROUP)
    kept.is_not_absent("sub1")
    assert (kept.absent_count, kept.absent_may_subscribe) == (0, False)
    with kept.coming():
        assert kept.absent_may_subscribe
    assert not kept.absent_may_subscribe


def test_a_users_sessions_and_groups_count_on_their_own() -> None:
    kept = Kept(Config())
    kept.quota_of = {"ann": Quota(sessions=2, groups=1), "bob": UNLIMITED}.__getitem__
    for name, user in (("a", "ann"), ("b", "ann"), ("c", "bob"), (GROUP, "ann")):
        kept.refuse_if_full(name, user)
        kept.set(name, NEVER)
        kept.belongs(name, user)
        kept.belongs(name, user)
    kept.refuse_if_full("d", "bob")
    with pytest.raises(QuotaExceeded, match="ann may have 2 sessions"):
        kept.refuse_if_full("d", "ann")
    with pytest.raises(QuotaExceeded, match="ann may have 1 group"):
        kept.refuse_if_full("$share/workers/u", "ann")
    kept.belongs("a", "bob")
    kept.refuse_if_full("d", "ann")
    kept.belongs("a", "ann")
    kept.set("a", Monotonic(1))
    kept.take_due(Monotonic(2), 10)
    kept.refuse_if_full("d", "ann")
    kept.remove(GROUP)
    kept.refuse_if_full("$share/workers/u", "ann")
