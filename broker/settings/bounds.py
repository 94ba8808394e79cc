"""Bounds: the least and the most of every setting that is a number."""

from __future__ import annotations

from collections.abc import Mapping

from broker.errors import ConfigError

MIB = 1024 * 1024
DAY_S = 86_400
TIB = 1 << 40
YEAR_S = 365 * DAY_S

BOUNDS: Mapping[str, tuple[float, float]] = {
    "port": (0, 65_535),
    # Less would refuse packets without which a client cannot even connect; more cannot be encoded.
    "packet_bytes_max": (256, 268_435_460),
    "connect_timeout_s": (0, DAY_S),
    "keep_alive_max_s": (0, 65_535),
    "connections_max": (1, 10_000_000),
    "unfinished_bytes_max": (1, TIB),
    "topic_bytes_max": (1, 65_535),  # A string of MQTT is no longer.
    "topic_levels_max": (1, 65_536),
    "properties_per_packet_max": (0, 1_000_000),
    "filters_per_packet_max": (1, 1_000_000),
    "subscriptions_per_session_max": (0, 10_000_000),
    "session_expiry_default_s": (0, 0xFFFF_FFFF),
    "session_expiry_max_s": (0, 0xFFFF_FFFF),
    "sessions_max": (0, 100_000_000),
    "groups_max": (0, 100_000_000),
    "groups_per_session_max": (0, 10_000_000),
    "wildcard_patterns_per_session_max": (0, 10_000_000),
    "subscribers_per_connection_max": (0, 10_000_000),
    "group_linger_s": (0, 0xFFFF_FFFF),
    "dead_letter_age_s": (0, 1000 * YEAR_S),
    "will_restart_grace_s": (0, DAY_S),
    "receive_max": (1, 65_535),
    "inflight_max": (1, 65_535),
    "topic_alias_max": (0, 65_535),
    "store_replicas_min": (1, 5),
    "store_keep_bytes": (MIB, TIB),
    "outbox_messages_max": (1, 10_000_000),
    "outbox_bytes_max": (1, TIB),
    "write_buffer_bytes_max": (1, TIB),
    "append_bytes_max": (1, TIB),
    "lazy_commit_ms": (0, 60_000),
    "sys_interval_s": (0, YEAR_S),
    "scrub_bytes_per_s": (0, TIB),
    "retention_interval_s": (0.1, DAY_S),
    "disk_free_min": (0, TIB),
    "drain_timeout_s": (0, DAY_S),
    "delayed_messages_max": (0, 10_000_000),
    "delayed_bytes_max": (0, TIB),
    "dedup_keys_max": (0, 10_000_000),
}


def check_bounds(settings: object, prefix: str = "") -> None:
    """Raises ConfigError. What is None is not set."""
    for name, (least, most) in BOUNDS.items():
        value = getattr(settings, name, None)
        if value is not None and not least <= value <= most:
            raise ConfigError(f"{prefix}{name}", value, f"must be {least}..{most}")
