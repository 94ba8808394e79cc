"""What of a client's messages is not taken now, and what that is answered."""

from __future__ import annotations

import pytest

from broker.clients.held_back import at_pace, refusals, slow_down
from broker.message import Monotonic
from broker.mqtt.packets import Ack, PacketType, Publish
from broker.security.quotas import Pace, Quota
from tests.support.clients import NOTHING_TO_TELL, services
from tests.support.messages import message
from tests.support.world import World

NOW = Monotonic(100)


def publish(qos: int, packet_id: int = 0) -> Publish:
    return Publish("t", b"12345", qos, False, False, packet_id)


ZERO, ONE, TWO, AGAIN = publish(0), publish(1, 1), publish(2, 2), publish(2, 3)


def is_repeated(packet: Publish) -> bool:
    return packet is AGAIN


def test_all_is_taken_and_counted_while_the_user_is_not_far_ahead() -> None:
    pace = Pace(Quota(publish_bytes_per_s=6))
    taken, refused = at_pace([ZERO, ONE, TWO], pace, NOW, is_repeated, tells=True)
    assert (taken, refused) == ([ZERO, ONE, TWO], [])
    assert pace.ahead_s(NOW) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("tells", "taken", "refused"), [(True, [AGAIN], [ONE, TWO]), (False, [ONE, TWO, AGAIN], [])]
)
def test_far_ahead_only_what_cannot_be_refused_is_taken(
    tells: bool, taken: list[Publish], refused: list[Publish]
) -> None:
    pace = Pace(Quota(publish_per_s=1))
    pace.take(100, 0, NOW)
    ahead_s = pace.ahead_s(NOW)
    split = at_pace([ZERO, ONE, TWO, AGAIN], pace, NOW, is_repeated, tells=tells)
    assert split == (taken, refused)
    assert pace.ahead_s(NOW) == pytest.approx(ahead_s + len(taken)), "what is refused costs nothing"


def test_a_refusal_is_an_acknowledgement_of_its_kind_with_a_reason() -> None:
    assert refusals([ONE, TWO], "no", "a") == [
        Ack(PacketType.PUBACK, [1], 0x97, "no"),
        Ack(PacketType.PUBREC, [2], 0x97, "no"),
    ]


class Reader:
    """Is read from, or not."""

    def __init__(self) -> None:
        self.paused: list[str] = []

    def pause_reading(self, reason: str) -> None:
        self.paused.append(reason)

    def resume_reading(self, reason: str) -> None:
        self.paused.remove(reason)

    def failed(self, error: Exception) -> None:
        raise error


async def test_lines_are_all_taken_and_slowed_down_for_what_they_take(world: World) -> None:
    given = services(world, NOTHING_TO_TELL)
    by, pace = Reader(), Pace(Quota(publish_bytes_per_s=6))
    given.quotas.pace_of = lambda user: pace if user == "ann" else None  # type: ignore[method-assign]
    now = world.clock.monotonic()
    before_s = pace.ahead_s(now)
    slow_down([message("12345", "t")] * 30, given, "bob", by)
    assert (by.paused, pace.ahead_s(now)) == ([], before_s)
    slow_down([message("12345", "t")], given, "ann", by)
    assert by.paused == []
    slow_down([message("12345", "t")] * 29, given, "ann", by)
    assert pace.ahead_s(now) == pytest.approx(29), "topics count, and a second is free"
    assert len(by.paused) == 1
    world.clock.advance(100)
    given.quotas.slowing.expire(world.clock.now())
    slow_down([message("1", "t")], given, "ann", by)
    assert by.paused == []
