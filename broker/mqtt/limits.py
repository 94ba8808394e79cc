"""Limits: how much one client may ask of its Network Connection. One object for all connections."""

from __future__ import annotations

from dataclasses import dataclass

from broker.config import Config


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
