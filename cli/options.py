"""Options that several commands have: the same letters and the same meaning in each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

DATA_DIR = "PUBSUB_DATA_DIR"
FRACTION_MAX = 1_000_000_000
"""Of seconds 31 years; the system's calls take no more for ever."""
OFFSET_MAX = (1 << 63) - 1
DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar=DATA_DIR, help="Where the broker keeps its log.")
]
SubscriberId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A client identifier, or the whole filter of a shared subscription."
    ),
]
Qos = Annotated[
    int, typer.Option("--qos", "-q", metavar="N", min=0, max=2, help="Quality of service.")
]
OptionalQos = Annotated[
    int | None,
    typer.Option("--qos", "-q", metavar="N", min=0, max=2, help="Quality of service. [1]"),
]
GroupName = Annotated[
    str, typer.Argument(metavar="GROUP", help="Its name, as `pubsub group ls` shows it.")
]
GroupFilter = Annotated[
    str | None,
    typer.Option("--filter", metavar="FILTER", help="Of the group, if several have its name."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """Which broker, and as whom: of each command that connects. See `cli/net/sources.py`."""

    host: Annotated[
        str | None,
        typer.Option("--host", "-h", help="The broker's host, or several: a,b:9001. [127.0.0.1]"),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            metavar="N",
            min=1,
            max=65_535,
            help="The broker's port. [9000; by TLS 8883]",
        ),
    ] = None
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            "-L",
            help="All in one: mqtt://[USER@]HOST[:PORT][/TOPIC]; mqtts:// by TLS; ws:// and wss://"
            " by WebSocket. [PUBSUB_URL]",
        ),
    ] = field(default=None, repr=False)
    context: Annotated[
        str | None, typer.Option("--context", help="A broker that `pubsub context add` named.")
    ] = None
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="As whom. [PUBSUB_USER]")
    ] = None
    password: Annotated[
        str | None,
        typer.Option("--password", "-P", help="Better from a file: others may see this one."),
    ] = field(default=None, repr=False)
    password_file: Annotated[
        Path | None,
        typer.Option(help="Its first line is the password. [PUBSUB_PASSWORD_FILE]"),
    ] = None
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", help="The first line of standard input is it; a terminal is asked."
        ),
    ] = False
    cafile: Annotated[
        Path | None,
        typer.Option(
            help="TLS, and who may vouch for the broker, in PEM. [PUBSUB_CAFILE; with mqtts://"
            " those that the system trusts]"
        ),
    ] = None
    cert: Annotated[
        Path | None, typer.Option(help="TLS, with this client certificate, in PEM.")
    ] = None
    key: Annotated[Path | None, typer.Option(help="The key of --cert. [in the same file]")] = None
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="TLS without looking who answers: only to try things."),
    ] = False

    @property
    def names_one(self) -> bool:
        """Whether they say where it is."""
        return any(one is not None for one in (self.host, self.port, self.url, self.context))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdministratorOptions:
    """Which broker is administered, and as whom. See `cli/operate/where.py`."""

    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", help="Where the broker keeps its log. [PUBSUB_DATA_DIR; data]"),
    ] = None
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            "-L",
            help="A broker elsewhere: https://[USER@]HOST:PORT of its listener for that."
            " [PUBSUB_ADMIN_URL]",
        ),
    ] = field(default=None, repr=False)
    context: Annotated[
        str | None, typer.Option("--context", help="A broker that `pubsub context add` named.")
    ] = None
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="As whom, elsewhere. [PUBSUB_USER]")
    ] = None
    password: Annotated[
        str | None,
        typer.Option("--password", "-P", help="Better from a file: others may see this one."),
    ] = field(default=None, repr=False)
    cafile: Annotated[
        Path | None,
        typer.Option(help="Who may vouch for the broker elsewhere, in PEM. [PUBSUB_CAFILE]"),
    ] = None
    cert: Annotated[Path | None, typer.Option(help="A client certificate, in PEM.")] = None
    key: Annotated[Path | None, typer.Option(help="The key of --cert. [in the same file]")] = None
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="TLS without looking who answers: only to try things."),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOptions(AdministratorOptions):
    """The same for a command that asks for the password of somebody else."""

    admin_password_file: Annotated[
        Path | None,
        typer.Option(help="The password of who administers elsewhere is its first line."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminOptions(AdministratorOptions):
    """The same for all other commands."""

    password_file: Annotated[
        Path | None,
        typer.Option(help="Its first line is the password. [PUBSUB_PASSWORD_FILE]"),
    ] = None
    password_stdin: Annotated[
        bool,
        typer.Option(
            "--password-stdin", help="The first line of standard input is it; a terminal is asked."
        ),
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How `pub` and `sub` connect."""

    keep_alive: Annotated[
        int,
        typer.Option(
            "--keepalive", "-k", metavar="N", min=5, max=65_535, help="Seconds between pings."
        ),
    ] = 60
    version: Annotated[
        str | None,
        typer.Option("--protocol-version", "-V", help="5 or mqttv5: it is always that."),
    ] = None
    debug: Annotated[
        bool,
        typer.Option("--debug", "-d", help="Tell on standard error which packets come and go."),
    ] = False
    will_topic: Annotated[
        str | None, typer.Option(help="Topic of a message for when we are cut off.")
    ] = None
    will_payload: Annotated[str | None, typer.Option(help="What that says.")] = None
    will_qos: Annotated[
        int, typer.Option(metavar="N", min=0, max=2, help="Its quality of service.")
    ] = 0
    will_retain: Annotated[bool, typer.Option("--will-retain", help="Retain it.")] = False


def finite(number: float | None) -> float | None:
    """The callback of an option with a fraction. Raises BadParameter: NaN, infinite, or of ages."""
    if number is not None and not number <= FRACTION_MAX:
        raise typer.BadParameter(f"{number} is more than {FRACTION_MAX:,}, or no number")
    return number


def unique() -> str:
    """What makes a name that nobody gave differ from all others. (`secrets` imports OpenSSL.)"""
    return os.urandom(6).hex()


SeekTo = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="SPEC",
        help="earliest, latest, N (offset), -N (its last N), @TIME: as `pubsub sub --from`.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent, or skipped.")]
