from __future__ import annotations

from broker.config import Config
from broker.settings.listeners import Listener
from tests.support.clients import services
from tests.support.world import World


def test_a_listener_has_limits_of_its_own(world: World) -> None:
    everything = services(world, Config(packet_bytes_max=3000, topic_bytes_max=30))
    small = everything.at(Listener(port=0, packet_bytes_max=500, allow_anonymous=True))
    assert (small.limits.packet_bytes_max, small.config.packet_bytes_max) == (500, 500)
    assert small.config.allow_anonymous
    usual = everything.at(Listener(port=0))
    assert (usual.limits, usual.config.allow_anonymous) == (everything.limits, False)
    assert small.sessions is everything.sessions
