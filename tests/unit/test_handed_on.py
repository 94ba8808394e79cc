"""QoS 0 messages that were delivered before their commit, by the runs in which they came."""

from __future__ import annotations

from broker.handed_on import AheadOfLog, HandedOn
from broker.message import Offset
from tests.support.messages import message


def part() -> HandedOn:
    """Runs 3 and 4, of two messages and of one."""
    found = HandedOn()
    found.add(3, [message("a"), message("b")], 2)
    found.add(4, [message("c")], 1)
    return found


def committed(found: HandedOn, first: int) -> HandedOn:
    for offset, one in enumerate(found.messages, first):
        one.offset = Offset(offset)
    found.committed()
    return found


def test_a_session_was_handed_every_run_up_to_its_number() -> None:
    found = part()
    assert [m.payload for m in found.later(3)] == [b"c"]
    assert (found.begins_by(3), found.begins_by(2)) == (True, False)
    assert committed(found, 10).offsets(3) == range(10, 12)
    assert found.offsets(2) == range(0)


def test_what_is_routed_is_ahead_of_nothing() -> None:
    ahead = AheadOfLog()
    ahead.parts.append(committed(part(), 10))
    ahead.routed_through = Offset(11)
    ahead.forget_routed()
    assert len(ahead.parts) == 1
    ahead.routed_through = Offset(12)
    ahead.forget_routed()
    assert not ahead.parts
