"""From the options that `pub` and `sub` share to the broker that they connect to, and how."""

from __future__ import annotations

from dataclasses import replace

import typer

from cli.address import Address, find, find_by, will_of

VERSIONS = {"5", "mqttv5"}


def address_of(
    url: str | None,
    host: str | None,
    port: int | None,
    username: str | None,
    password: str | None,
    keep_alive_s: int,
    *,
    version: str | None,
    debug: bool,
    will_topic: str | None,
    will_payload: str | None,
    will_qos: int,
    will_retain: bool,
) -> tuple[Address, str | None]:
    """And the topic that the URL names. Raises BadParameter, CommandFailed (2)."""
    if version is not None and version not in VERSIONS:
        raise typer.BadParameter(
            f"-V {version}: these commands speak MQTT 5 only, leave it out; a session of 3.1.1 with"
            " Clean Session 0 is --id"
        )
    will = will_of(will_topic, will_payload, will_qos, retain=will_retain)
    if url is None:
        address, topic = find(host, port, username, password, keep_alive_s), None
    elif (host, port, username, password) != (None, None, None, None):
        raise typer.BadParameter("--url says all that -h, -p, -u and -P say: use one")
    else:
        address, topic = find_by(url, keep_alive_s)
    return replace(address, will=will, debug=debug), topic
