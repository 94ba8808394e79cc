"""Mixed: QoS 0 beside QoS 1 and 2 keeps its order, and somebody hears of the last commit."""

from __future__ import annotations

import pytest

from broker.clients.mixed import append_mixed
from broker.errors import StoreError
from tests.support.messages import message
from tests.support.world import World


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("qualities", [(0, 1, 0, 2, 0), (0, 1), (0, 0), (1, 0)])
async def test_the_order_stays_and_the_callback_is_called_once(
    world: World, qualities: tuple[int, ...]
) -> None:
    heard: list[StoreError | None] = []
    messages = [message(str(n), qos=qos) for n, qos in enumerate(qualities)]
    append_mixed(world.log, messages, heard.append, fail, keep_if_full=True)
    await world.settled()
    assert heard == [None]
    assert [m.offset for m in messages] == sorted(m.offset for m in messages)
    assert all(m.offset for m in messages)
