from __future__ import annotations

from broker.message import WallUs
from broker.session.tally import Tally


def test_it_goes_on_from_what_was_stored() -> None:
    tally = Tally(1, WallUs(5), 2, 3)
    tally.sent_again(4)
    tally.lacks(1)
    assert (tally.last_seen_us, tally.redelivered, tally.missed) == (5, 6, 4)
    tally.left(WallUs(9))
    assert tally.last_seen_us == 9
