"""A subscriber that is away or does not keep up costs disk, not memory (P7)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.crash.client import PUBACK, PUBLISH, RecordingClient, RecordingSubscriber, packet, string
from tests.crash.history import History, Key, encode_payload
from tests.crash.killable_broker import KillableBroker

pytestmark = pytest.mark.alone

MESSAGES = 200_000
BATCH = 1000
PAYLOAD_BYTES = 128
GROWTH_BYTES_MAX = 50 * 1024 * 1024


class Flood(RecordingClient):
    """Publishes `MESSAGES` with QoS 1, a batch at a time, each acknowledged before the next."""

    async def run(self) -> None:
        for start in range(1, MESSAGES, BATCH):
            self._left = BATCH
            self._answered = asyncio.Event()
            self._write(b"".join(map(self._publish, range(start, start + BATCH))))
            await self._answered.wait()

    def _publish(self, sequence: int) -> bytes:
        packet_id = sequence % BATCH + 1
        payload = encode_payload(Key(self.name, sequence), 1, PAYLOAD_BYTES)
        return packet(PUBLISH, 0x02, string("load") + packet_id.to_bytes(2, "big") + payload)

    def received(self, kind: int, flags: int, body: bytes) -> None:
        assert kind == PUBACK
        self._left -= 1
        if not self._left:
            self._answered.set()


async def test_a_backlog_does_not_grow_the_broker(tmp_path: Path) -> None:
    """One subscriber is away, one acknowledges nothing, one does not even read its socket."""
    history = History()
    absent = RecordingSubscriber("absent", history, {"#": 1})
    silent = RecordingSubscriber("silent", history, {"#": 1})
    stuck = RecordingSubscriber("stuck", history, {"#": 1})
    flood = Flood("flood", history)
    with KillableBroker(tmp_path) as broker:
        await broker.start()
        for subscriber in (absent, silent, stuck):
            await subscriber.connect(broker.port)
            await subscriber.subscribed.wait()
        await absent.disconnect()
        silent.suspend()
        stuck.pause_reading()
        await flood.connect(broker.port)
        before = broker.resident_bytes()

        await asyncio.wait_for(flood.run(), 60)
        growth = broker.resident_bytes(peak=True) - before
        assert growth < GROWTH_BYTES_MAX, f"grew by {growth >> 20} MiB with the backlog"

        await absent.connect(broker.port)
        await asyncio.wait_for(absent.settled({Key("flood", MESSAGES)}), 60)
        growth = broker.resident_bytes(peak=True) - before
        assert growth < GROWTH_BYTES_MAX, f"grew by {growth >> 20} MiB with the drain"
        received = [delivery.key.sequence for delivery in history.deliveries["absent"]]
        assert received == list(range(1, MESSAGES + 1))

        for client in (absent, silent, stuck, flood):
            client.drop()
            await client.offline.wait()
