"""Options of mosquitto_pub and mosquitto_sub that these commands do not have: what to use instead.

What is there has the same letters, see `cli.options`. `-d` is the one that people type for two
things: it is debug here, as there, and no daemon.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand

_NO_PSK = "TLS is by certificates here: --cafile, --cert and --key"
_DECIDED = "leave it out: it is TLS 1.2 or newer with what OpenSSL takes as safe, and ALPN mqtt"
INSTEAD = {
    "-A": "it cannot be bound to an address: leave it out",
    "-I": "use --id NAME for a durable client; without it, the identifier is unique",
    "-M": "leave it out: the broker says how many may be in flight",
    "-S": "no SRV records are looked up: give --host",
    "--bind": "it cannot be bound to an address: leave it out",
    "--id-prefix": "use --id NAME for a durable client; without it, the identifier is unique",
    "--max-inflight": "leave it out: the broker says how many may be in flight",
    "--nodelay": "leave it out: that is always so",
    "--pretty": "use --json, and a program like jq",
    "--proxy": "there is none: use a tunnel",
    "--psk": _NO_PSK,
    "--psk-identity": _NO_PSK,
    "--capath": "put the certificates into one file: --cafile",
    "--tls-use-os-certs": "leave it out: with mqtts:// and no --cafile they are used",
    "--repeat": "repeat it with the shell: seq N | pubsub pub TOPIC -l",
    "--repeat-delay": "repeat it with the shell: while sleep 1; do pubsub pub TOPIC MESSAGE; done",
    "--remove-retained": "publish an empty one: pubsub pub TOPIC --null-message --retain",
    "--retained-only": "there is no such option; retained messages come first, and -W ends it",
    "--retain-as-published": "leave it out: -F %r shows whether a message is a retained one",
    "--retain-handling": "leave it out: retained messages come once for a new subscription;"
    " --ignore-retained leaves them out",
    "--random-filter": "take every so manieth with a program like awk",
    "--unix": "the broker's Unix socket is for clients of other libraries: use --host and --port",
    "--keyform": "leave it out: a key is in PEM",
    "--tls-engine": "leave it out: a key is in a file",
    "--tls-engine-kpass-sha1": "leave it out: a key is in a file",
    "--tls-keylog": "set SSLKEYLOGFILE",
    **dict.fromkeys(["--ciphers", "--tls-version", "--tls-alpn"], _DECIDED),
}
_NOT_FOR_PUB = {
    "-c": "leave it out: with -l the session outlives a lost connection",
    "-x": "leave it out: with -l the session outlives a lost connection",
    "-C": "it is for pubsub sub",
    "-E": "it is for pubsub sub",
    "-F": "it is for pubsub sub; a file is -f",
    "-N": "it is for pubsub sub",
    "-R": "it is for pubsub sub",
    "-T": "it is for pubsub sub",
    "-U": "it is for pubsub sub",
    "-v": "it is for pubsub sub; -d tells what is sent",
}
_NOT_FOR_SUB = {
    "-D": "what subscribers ask for has options: --from, --until, --session-expiry-interval",
    "-f": "it is for pubsub pub; a format is -F",
    "-l": "it is for pubsub pub",
    "-m": "it is for pubsub pub",
    "-n": "it is for pubsub pub; a number of messages is -C",
    "-r": "it is for pubsub pub",
    "-s": "it is for pubsub pub",
}

_PACKETS = {"connect", "publish", "disconnect", "will"}
"""First words of `-D` there: `-D publish user-property NAME VALUE`."""

_exceptions = sys.modules[typer.BadParameter.__module__]  # typer's own ones of click, or click's
NoSuchOption: type[Any] = _exceptions.NoSuchOption
UsageError: type[Any] = _exceptions.UsageError


class KnowsMosquitto(TyperCommand):
    """A command that says what to use in place of an option that only Mosquitto's has."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(one == "-D" and following in _PACKETS for one, following in pairwise(args)):
            raise UsageError("no -D PACKET here: a User Property is -D NAME=VALUE", ctx=ctx)
        try:
            return super().parse_args(ctx, args)
        except NoSuchOption as error:
            others = _NOT_FOR_PUB if ctx.command.name == "pub" else _NOT_FOR_SUB
            name: str = error.option_name
            instead = {**INSTEAD, **others}.get(name)
            if instead is None:
                raise
            raise UsageError(f"no {name} here: {instead}", ctx=ctx) from None
