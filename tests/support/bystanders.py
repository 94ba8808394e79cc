"""Bystanders: two healthy clients, who must not notice what others do."""

from __future__ import annotations

from itertools import count

from broker.mqtt.packets import Ack, PacketType, Publish
from tests.support.raw_client import RawClient, connect_packet


class Bystanders:
    """A healthy subscriber and a healthy publisher."""

    def __init__(self, port: int, name: str) -> None:
        self.topic = f"bystanders/{name}"
        self._numbers = count(1)
        self.subscriber = RawClient(port)
        self.subscriber.connect(connect_packet(f"{name}-subscriber"))
        self.subscriber.subscribe(self.topic, 1)
        self.publisher = RawClient(port)
        self.publisher.connect(connect_packet(f"{name}-publisher"))

    def exchange(self) -> None:
        """One message from one to the other, and nothing else."""
        payload = b"%d" % next(self._numbers)
        self.publisher.send(Publish(self.topic, payload, 1, False, False, 1))
        assert self.publisher.expect(Ack).packet_ids == [1]
        assert self.received() == payload

    def received(self) -> bytes:
        publish = self.subscriber.expect(Publish)
        self.subscriber.send(Ack(PacketType.PUBACK, [publish.packet_id]))
        return publish.payload

    def close(self) -> None:
        self.subscriber.socket.close()
        self.publisher.socket.close()
