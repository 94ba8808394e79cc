"""Options that several commands have: the same letters and the same meaning in each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

DATA_DIR = "PUBSUB_DATA_DIR"
DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar=DATA_DIR, help="Where the broker keeps its log.")
]
SubscriberId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="A client identifier, or the whole filter of a shared subscription."
    ),
]
Host = Annotated[
    str | None, typer.Option("--host", "-h", help="The broker's host. [PUBSUB_URL, 127.0.0.1]")
]
Port = Annotated[
    int | None,
    typer.Option("--port", "-p", min=1, max=65_535, help="The broker's port. [PUBSUB_URL, 9000]"),
]
Username = Annotated[str | None, typer.Option("--username", "-u")]
Password = Annotated[str | None, typer.Option("--password", "-P")]
KeepAlive = Annotated[
    int, typer.Option("--keepalive", "-k", min=5, max=65_535, help="Seconds between pings.")
]
Url = Annotated[
    str | None,
    typer.Option("--url", "-L", help="All in one: mqtt://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC]."),
]
ProtocolVersion = Annotated[
    str | None, typer.Option("--protocol-version", "-V", help="5 or mqttv5: it is always that.")
]
Debug = Annotated[
    bool, typer.Option("--debug", "-d", help="Tell on standard error which packets come and go.")
]
WillTopic = Annotated[
    str | None, typer.Option("--will-topic", help="Topic of a message for when we are cut off.")
]
WillPayload = Annotated[str | None, typer.Option("--will-payload", help="What that says.")]
WillQos = Annotated[int, typer.Option("--will-qos", min=0, max=2, help="Its quality of service.")]
WillRetain = Annotated[bool, typer.Option("--will-retain", help="Retain it.")]
Qos = Annotated[int, typer.Option("--qos", "-q", min=0, max=2, help="Quality of service.")]
OptionalQos = Annotated[
    int | None, typer.Option("--qos", "-q", min=0, max=2, help="Quality of service. [1]")
]


GroupName = Annotated[
    str, typer.Argument(metavar="GROUP", help="Its name, as `pubsub group ls` shows it.")
]
GroupFilter = Annotated[
    str | None,
    typer.Option("--filter", metavar="FILTER", help="Of the group, if several have its name."),
]


def unique() -> str:
    """What makes a name that nobody gave differ from all others. (`secrets` imports OpenSSL.)"""
    return os.urandom(6).hex()
