"""Limits: how much one client may ask of its Network Connection. One object for all connections."""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker.config import Config
from broker.mqtt.fields import PACKET_BYTES_MAX
from broker.mqtt.packets import RECEIVE_MAXIMUM_DEFAULT, Properties
from broker.mqtt.properties import Property


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """In bytes, counts and seconds, as the names say; `Config` says more about each."""

    packet_bytes_max: int
    topic_bytes_max: int
    topic_levels_max: int
    receive_max: int
    topic_alias_max: int
    properties_per_packet_max: int
    filters_per_packet_max: int
    connect_timeout_s: float

    @classmethod
    def of(cls, config: Config) -> Limits:
        return cls(
            packet_bytes_max=config.packet_bytes_max,
            topic_bytes_max=config.topic_bytes_max,
            topic_levels_max=config.topic_levels_max,
            receive_max=config.receive_max,
            topic_alias_max=config.topic_alias_max,
            properties_per_packet_max=config.properties_per_packet_max,
            filters_per_packet_max=config.filters_per_packet_max,
            connect_timeout_s=config.connect_timeout_s,
        )

    def with_packets(self, bytes_max: int) -> Limits:
        """With a stricter limit of packets, if it is one."""
        return replace(self, packet_bytes_max=min(self.packet_bytes_max, bytes_max))

    def announced(self) -> Properties:
        """The limits that CONNACK must tell: those that differ from MQTT's defaults."""
        properties: Properties = {}
        if self.receive_max < RECEIVE_MAXIMUM_DEFAULT:
            properties[Property.RECEIVE_MAXIMUM] = self.receive_max
        if self.packet_bytes_max < PACKET_BYTES_MAX:
            properties[Property.MAXIMUM_PACKET_SIZE] = self.packet_bytes_max
        if self.topic_alias_max:
            properties[Property.TOPIC_ALIAS_MAXIMUM] = self.topic_alias_max
        return properties
