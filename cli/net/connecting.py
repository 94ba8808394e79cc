"""From the options that `pub` and `sub` share to the broker that they connect to, and how."""

from __future__ import annotations

from dataclasses import replace

import typer

from cli.net.address import Address, will_of
from cli.net.sources import find
from cli.options import BrokerOptions, ClientOptions

VERSIONS = {"5", "mqttv5"}


def address_of(broker: BrokerOptions, client: ClientOptions) -> tuple[Address, str | None]:
    """And the topic that the URL names. Raises BadParameter, CommandFailed (2)."""
    if client.version is not None and client.version not in VERSIONS:
        raise typer.BadParameter(
            f"-V {client.version}: these commands speak MQTT 5 only, leave it out; a session of"
            " 3.1.1 with Clean Session 0 is --id"
        )
    will = will_of(
        client.will_topic, client.will_payload, client.will_qos, retain=client.will_retain
    )
    address, topic = find(broker)
    return replace(address, keep_alive_s=client.keep_alive, will=will, debug=client.debug), topic
