from __future__ import annotations

import pytest

from broker.errors import ConfigError
from broker.store.shared.address import parse


@pytest.mark.parametrize(
    ("text", "servers", "name"),
    [
        ("nats://a:1,b:2,c:3", "nats://a:1 nats://b:2 nats://c:3", "log"),
        ("nats://a", "nats://a:4222", "log"),
        ("nats://a.example.org,[::1]:7/x_1", "nats://a.example.org:4222 nats://[::1]:7", "x_1"),
        ("nats://a:1,nats://b:2", "nats://a:1 nats://b:2", "log"),
    ],
)
def test_nodes_and_name(text: str, servers: str, name: str) -> None:
    assert (list(parse(text).servers), parse(text).name) == (servers.split(), name)


@pytest.mark.parametrize(
    "text",
    ["", "a:1", "nats://", "nats://a,,b", "nats://a:x", "nats://a:0", "nats://a/b.c", "nats://a b"],
)
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="store"):
        parse(text)
