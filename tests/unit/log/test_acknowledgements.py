"""Writes that are put off: until the end of a commit, or of a turn of the loop."""

from __future__ import annotations

import asyncio

from broker.log.acknowledgements import Acknowledgements


async def test_outside_of_a_commit_they_leave_at_the_end_of_the_turn() -> None:
    acknowledgements, written = Acknowledgements(), list[str]()
    acknowledgements.put_off(lambda: written.append("one"))
    acknowledgements.put_off(lambda: written.append("two"))
    assert written == []
    await asyncio.sleep(0)
    assert written == ["one", "two"]


async def test_those_of_a_commit_leave_when_it_says_so() -> None:
    acknowledgements, written = Acknowledgements(), list[str]()
    acknowledgements.held = True
    acknowledgements.put_off(lambda: written.append("one"))
    await asyncio.sleep(0)
    assert written == []
    acknowledgements.held = False
    acknowledgements.leave()
    assert written == ["one"]
    acknowledgements.leave()
    await asyncio.sleep(0)
    assert written == ["one"]
