"""Every setting and limit, with its unit in its name. Defaults are safe for a fresh machine."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from broker.errors import ConfigError
from broker.settings.bounds import DAY_S, MIB, check_bounds
from broker.settings.dedup import DedupRule
from broker.settings.files import read_file
from broker.settings.listeners import Listener, is_loopback
from broker.settings.near import meant
from broker.settings.retention import RetentionRule, bytes_of, rules_of

DATABASE = "pubsub.db"
SQLITE = "sqlite"
"""The `store` of a broker alone."""
ADMIN_SOCKET = "admin.sock"
LOCK = "broker.lock"
"""The files of a data directory. A broker that uses it holds a lock on `LOCK`."""
NOTE_SUFFIX = "-note"
"""Added to the name of the database: what its broker notes beside it."""

LOOPBACK = "127.0.0.1"
OF_LISTENERS = ("allow_anonymous", "packet_bytes_max")
"""Settings that a listener may have otherwise than the broker."""

ACKNOWLEDGE, CLOSE = "acknowledge", "close"
"""What becomes of a forbidden PUBLISH of MQTT 3.1.1."""

LOG_LEVELS = ("debug", "info", "warning", "error")
"""From the most that is told to the least."""

ADVERTISED = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}")
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]+")


R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    host: str = LOOPBACK
    port: int = 9000
    unix_socket: Path | None = None
    """Listen there too, for this user alone."""
    listeners: tuple[Listener, ...] = ()
    """Tables `[[listeners]]`, each with a host and port of its own: in place of `host` and `port`.
    """
    websocket_origins: tuple[str, ...] = ()
    """Web pages that may connect, beside those of this machine: `https://host`, `*` for all."""
    data_dir: Path = Path("data")
    durability: str = "fsync"
    """"fsync": acknowledged means on the disk. "os": acknowledged means handed to the kernel, which
    survives a kill of the broker and not a power cut."""
    store: str = SQLITE
    """Or `nats://host:port,host:port,host:port`: a log that several brokers share; in `data_dir` is
    a copy of it. See docs/cluster.md."""
    store_replicas_min: int = 3
    """A shared log that fewer nodes keep is refused. Less than 3 survives the loss of none."""
    store_keep_bytes: int = 10 << 30
    store_credentials: Path | None = None
    """A file with `user:password` for the nodes of the shared log."""
    store_ca: Path | None = None
    """Whose certificates these nodes have; with it, or with `store_cert`, they are talked to by
    TLS."""
    store_cert: Path | None = None
    store_key: Path | None = None
    """Our own certificate for them, if they ask for one."""
    advertise: str = ""
    """`host:port` where clients reach this broker: the others that share its log refer theirs to
    it. Empty: they do not."""
    allow_anonymous: bool = False
    """Who gives no user name is the user `anonymous`. Needed to listen on anything but loopback
    while there are no users."""

    forbidden_publish_3_1_1: str = ACKNOWLEDGE
    """What a 3.1.1 client gets for a message that it has no right to publish, as it cannot be told:
    "acknowledge" as if it were stored, or "close" the connection. Both are counted."""
    jwt_keys: Path | None = None
    """A JWK Set: tokens that one of its keys signed are taken in place of a password ..."""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    """... if they say this; empty: whatever they say. Who it is, and with what roles, is in:"""
    jwt_user_claim: str = "sub"
    jwt_roles_claim: str = "roles"

    packet_bytes_max: int = 2 * MIB
    unfinished_bytes_max: int = 256 * MIB
    """Unfinished packets, lines and HTTP requests of all connections together. If there is only
    one, it may be larger."""
    connect_timeout_s: float = 10.0
    keep_alive_max_s: int = 0
    """The longest Keep Alive of an MQTT 5 client. A client that asks for more, or for none, is held
    to it. 0: no limit."""
    response_information: str = ""
    """Response Information for MQTT 5 clients that ask for it; empty: none."""
    connections_max: int = 20_000
    topic_bytes_max: int = 4096
    topic_levels_max: int = 200
    properties_per_packet_max: int = 1000
    """Of one MQTT 5 packet, User Properties included; those of a Will count on their own."""
    filters_per_packet_max: int = 10_000
    """Topic Filters of one SUBSCRIBE or UNSUBSCRIBE: so many are decoded in about 20 ms, in which
    nobody else is attended to. (`python -m benchmarks.codec`, *SUBSCRIBE of 10*: 2 µs for each.)"""
    subscriptions_per_session_max: int = 100_000
    session_expiry_default_s: int = 30 * DAY_S
    """Of a 3.1.1 session with Clean Session 0: it ends after being unused this long."""
    session_expiry_max_s: int = 0xFFFF_FFFF
    sessions_max: int = 1_000_000
    groups_max: int = 100_000
    """Groups of Shared Subscriptions, also those that wait in the log without a member. Beyond, a
    new one takes the place of one that lingers."""
    groups_per_session_max: int = 10_000
    """Of the subscriptions of one session."""
    wildcard_patterns_per_session_max: int = 256
    """Where the wildcards are in its Topic Filters: `a/+` and `b/+` have one pattern, `+/a` has
    another. A message matches a filter of each, and all that it matches are found in one turn."""
    subscribers_per_connection_max: int = 1000
    """Of one connection that speaks the line protocol: each is a session that stays."""
    group_linger_s: int = 3600
    """A group stays so long after the last session that was subscribed to it has ended, so that
    workers can restart; with unread messages `session_expiry_default_s`, if that is longer. 0: it
    ends with that session."""
    dead_letter_age_s: int = 30 * DAY_S
    """A dead letter is dropped, and its message not kept for it any more, after this; 0: never."""
    will_restart_grace_s: float = 30.0
    """After a start, a client of the run before has so long to come back before its will is
    published. 0: the broker's stop publishes the wills of its clients."""

    receive_max: int = 2000
    """QoS 1 and 2 messages that one MQTT 5 client may have unacknowledged towards us."""
    inflight_max: int = 2000
    """QoS 1 and 2 messages unacknowledged by one client; its own Receive Maximum may be less."""
    topic_alias_max: int = 64
    outbox_messages_max: int = 10_000
    """Messages waiting in memory for one subscriber; beyond, it reads them from the log."""
    outbox_bytes_max: int = 4 * MIB
    write_buffer_bytes_max: int = 1 * MIB
    append_bytes_max: int = 32 * MIB
    """Memory of messages that wait for the disk; beyond, QoS 0 is not logged, and publishers of
    QoS 1 and 2 are not read from. They are already while more waits than 0.1 s of writing."""
    lazy_commit_ms: int = 250
    """How long QoS 0 messages, which are delivered at once, wait for company before they are
    logged. A kill of the broker loses those of this time, and of the commit under way. 0: no
    wait."""
    delayed_messages_max: int = 100_000
    """Messages that wait until they are due, published with a delay; more are refused. Each takes
    about 300 bytes of memory, and ..."""
    delayed_bytes_max: int = 256 * MIB
    """... they may cost so much together, payloads and properties included."""
    dedup: tuple[DedupRule, ...] = ()
    """`[[dedup]] filter = "orders/#" window = "10m"`: what is published there with a `dedup-key` is
    stored once for each key, publisher and topic. The first filter that matches counts."""
    dedup_keys_max: int = 250_000
    """Keys in their windows; a message with one more is refused. Each takes about 250 bytes."""
    sys_interval_s: float = 10.0
    """How often changed values under `$SYS/broker` are published; 0: there are none."""
    scrub_bytes_per_s: int = MIB // 4
    """How fast the log is read to find damage; 0: not at all. 10 GiB take half a day."""
    retention: tuple[RetentionRule, ...] = ()
    """How long messages are kept, by Topic Filter: tables `[[retention]]`. What none of them
    matches is kept for 30 days, up to 10 GiB or half of the file system; in a log that an older
    version has made, for ever."""
    retention_interval_s: float = 30.0
    """The pause between two looks at what may go."""
    disk_free_min: int = 200_000_000
    """With less free space than this, or a twentieth of the file system if that is less, no more
    messages are taken, until there is more again. 0: only when the disk is full."""
    drain_timeout_s: float = 10.0
    log_level: str = "info"
    """The lowest level that is told on standard error. Never a payload or a password."""

    def __post_init__(self) -> None:
        check_bounds(self)
        for listener in self.listeners:
            check_bounds(listener, "listeners.")
        if self.durability not in ("fsync", "os"):
            raise ConfigError("durability", self.durability, 'must be "fsync" or "os"')
        if self.forbidden_publish_3_1_1 not in (ACKNOWLEDGE, CLOSE):
            raise ConfigError(
                "forbidden_publish_3_1_1",
                self.forbidden_publish_3_1_1,
                f'must be "{ACKNOWLEDGE}" or "{CLOSE}"',
            )
        if self.log_level not in LOG_LEVELS:
            raise ConfigError(
                "log_level", self.log_level, f"must be one of {', '.join(LOG_LEVELS)}"
            )
        if "\0" in self.response_information or len(self.response_information.encode()) > 65_535:
            raise ConfigError(
                "response_information",
                self.response_information[:40],
                "must be at most 65535 bytes in UTF-8, without NUL",
            )
        if self.advertise and not ADVERTISED.fullmatch(self.advertise):
            raise ConfigError("advertise", self.advertise, "must be like mqtt1.example.org:1883")
        for origin in self.websocket_origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise ConfigError(
                    "websocket_origins", origin, 'must be "*" or like https://www.example.org:8443'
                )

    @property
    def every_listener(self) -> tuple[Listener, ...]:
        """All that is listened on, in the order in which that begins."""
        listeners = self.listeners or (Listener(host=self.host, port=self.port),)
        if self.unix_socket is not None:
            return (Listener(unix_socket=self.unix_socket), *listeners)
        return listeners

    @property
    def open_host(self) -> str | None:
        """Where others could connect without a password if there was no user; None: nowhere."""
        for listener in self.every_listener:
            allowed = listener.allow_anonymous
            if allowed is None:
                allowed = self.allow_anonymous
            safe = allowed or listener.administers or is_loopback(listener.host)
            if not safe and listener.port is not None:
                return listener.host
        return None

    def at(self, listener: Listener) -> Config:
        """The settings that hold for what connects there."""
        own = {name: getattr(listener, name) for name in OF_LISTENERS}
        own = {name: value for name, value in own.items() if value is not None}
        return replace(self, listeners=(), host=LOOPBACK, **own)

    def renew(self, other: Config) -> None:
        """Become the same as `other`: for everybody who looks a setting up when it needs it."""
        for field in fields(self):
            object.__setattr__(self, field.name, getattr(other, field.name))

    @classmethod
    def load(cls, path: Path | None, overrides: Mapping[str, Any]) -> Config:
        """Defaults, then the TOML file at `path`, then `overrides` (those that are not None).

        Raises ConfigError: unreadable file, unknown key, wrong type or impossible value.
        """
        values: dict[str, Any] = {}
        if path is not None:
            content = read_file("config", path)
            try:
                values = tomllib.loads(content.decode())
            except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
                raise ConfigError("config", str(path), f"is not TOML: {error}") from error
        values |= {key: value for key, value in overrides.items() if value is not None}
        for key in ("host", "port") if "listeners" in values else ():
            if key in values:
                raise ConfigError(key, values[key], "belongs into a [[listeners]], if there is one")
        types = get_type_hints(cls)
        for key, value in values.items():
            if key not in types:
                raise ConfigError(key, value, f"is not a setting; {meant(key, types)}")
            values[key] = _converted(key, value, types[key])
        return cls(**values)


def _converted(key: str, value: object, wanted: Any) -> object:
    """What the file or the command line says, as the setting's type. Raises ConfigError."""
    if type(None) in get_args(wanted):
        (wanted,) = set(get_args(wanted)) - {type(None)}
    if key in ("disk_free_min", "store_keep_bytes"):
        return bytes_of(key, value)
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if wanted in (int, str, bool) and type(value) is wanted:
        return value
    if wanted is Path and isinstance(value, str | Path):
        if "\0" in str(value):
            raise ConfigError(key, str(value), "must be a path, without NUL")
        return Path(value)
    if wanted == tuple[DedupRule, ...]:
        return _tables(key, value, DedupRule)
    if wanted == tuple[Listener, ...]:
        return _tables(key, value, Listener)
    if wanted == tuple[RetentionRule, ...]:
        return rules_of(value)
    if wanted == tuple[str, ...]:
        if isinstance(value, list | tuple) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        raise ConfigError(key, value, "must be a list of strings")
    raise ConfigError(key, value, f"must be {KINDS.get(wanted, 'a path')}")


def _tables(key: str, value: object, table_type: type[R]) -> tuple[R, ...]:
    """The tables `[[key]]` of the file. Raises ConfigError."""
    if not (isinstance(value, list | tuple) and all(isinstance(table, dict) for table in value)):
        raise ConfigError(key, value, f"must be tables: [[{key}]]")
    types = get_type_hints(table_type)
    needed = [field.name for field in fields(table_type) if field.default is MISSING]  # type: ignore[arg-type]
    tables: list[R] = []
    for table in value:
        values: dict[str, Any] = {}
        for name, given in table.items():
            if name not in types:
                known = ", ".join(types)
                raise ConfigError(f"{key}.{name}", given, f"is not known: [[{key}]] has {known}")
            values[name] = _converted(f"{key}.{name}", given, types[name])
        for name in needed:
            if name not in table:
                raise ConfigError(f"{key}.{name}", "", f"is missing in a [[{key}]]")
        tables.append(table_type(**values))
    return tuple(tables)


KINDS = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
"""What a setting of each type is called."""
