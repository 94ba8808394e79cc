from __future__ import annotations

from broker.documents import AheadOfLog, HandedOn
from broker.message import Offset
from broker.session.position import LivePosition
from broker.session.standing import Standing
from tests.support.messages import message


def run(number: int, offset: int) -> HandedOn:
    part = HandedOn()
    part.add(number, [message(offset=offset)], 1)
    part.committed()
    return part


def live() -> LivePosition:
    ahead = AheadOfLog()
    ahead.number = 2
    ahead.parts.extend([run(1, 5), run(2, 7)])
    return LivePosition(Offset(4), ahead)


def test_whoever_is_ahead_has_had_every_run() -> None:
    standing = Standing(Offset(0))
    standing.position = live()
    assert standing.served().ranges() == []
    standing.go_ahead()
    assert standing.served().ranges() == [range(5, 6), range(7, 8)]


def test_whoever_stays_back_has_had_the_runs_up_to_then_also_when_it_is_behind() -> None:
    standing = Standing(Offset(0))
    standing.position = live()
    standing.go_ahead()
    standing.stay_back(1)
    standing.stay_back(2)
    assert (standing.ahead, standing.handed_through) == (False, 1)
    standing.fall_behind(Offset(4))
    assert not standing.position.is_live
    assert standing.served().ranges() == [range(5, 6)]


def test_whoever_falls_behind_from_ahead_has_had_all_of_them() -> None:
    standing = Standing(Offset(0))
    position = live()
    standing.position = position
    standing.go_ahead()
    standing.fall_behind(Offset(3))
    position.ahead.parts.clear()
    assert (standing.ahead, standing.handed_through) == (False, 2)
    assert (standing.position.through, standing.position.served.through()) == (3, 7)
