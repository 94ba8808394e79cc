"""What is said when a broker is not there or does not let us in."""

from __future__ import annotations

import pytest

from cli.address import Address, check_string, find
from cli.failure import CommandFailed, Exit

ADDRESS = Address(host="h", port=1)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (Address(), "127.0.0.1:9000 (gone); is it running? start it with: pubsub broker start"),
        (
            Address(host="::1", port=9001),
            "[::1]:9001 (gone); is it running? start it with: pubsub broker start --port 9001",
        ),
        (ADDRESS, "h:1 (gone); is it running, and does it listen on that address?"),
    ],
)
def test_nobody_there_says_how_to_start_a_broker_here(address: Address, said: str) -> None:
    failed = address.unreachable("gone")
    assert str(failed) == f"no MQTT broker answers at {said}"
    assert failed.code is Exit.UNREACHABLE


def test_a_refusal_says_what_to_check_only_where_that_helps() -> None:
    failed = ADDRESS.refused("Not authorized", not_authorized=True)
    said = "the broker at h:1 refused the connection: Not authorized"
    assert (str(failed), failed.code) == (f"{said}; check -u and -P", Exit.NOT_AUTHORIZED)
    failed = ADDRESS.refused("Server busy", not_authorized=False)
    assert str(failed) == "the broker at h:1 refused the connection: Server busy"
    assert failed.code is Exit.FAILED


@pytest.fixture(autouse=True)
def no_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUBSUB_URL", raising=False)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("", Address()),
        ("mqtt://h", Address(host="h")),
        ("mqtt://h:1883/", Address(host="h", port=1883)),
        ("tcp://[::1]:1", Address(host="::1", port=1)),
        ("mqtt://me%40x:p%3A@h", Address(host="h", username="me@x", password="p:")),
    ],
)
def test_the_environment_finds_the_broker(
    url: str, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_URL", url)
    assert find(None, None, None, None) == address


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64, "caf\udce9", "a b\ud800"])
def test_what_cannot_be_a_host_is_a_usage_error(host: str) -> None:
    with pytest.raises(CommandFailed, match="is no host name") as raised:
        find(host, None, None, None)
    assert raised.value.code is Exit.USAGE


@pytest.mark.parametrize("host", ["localhost", "::1", "fe80::1%eth0", "bücher.example", "10.0.0.1"])
def test_what_can_be_a_host_is_taken_as_it_is(host: str) -> None:
    assert find(host, None, None, None).host == host


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\udcff", "a is not valid UTF-8"),
        ("x\0", "a must have at most 65,535 bytes, and no NUL"),
        ("é" * 32_768, "a must have at most 65,535 bytes, and no NUL"),
    ],
)
def test_what_no_packet_can_hold_is_a_usage_error(text: str, said: str) -> None:
    check_string("a", None)
    check_string("a", "é" * 32_767 + "x")
    with pytest.raises(CommandFailed) as raised:
        check_string("a", text)
    assert (str(raised.value), raised.value.code) == (said, Exit.USAGE)
    for username, password in ((text, None), ("u", text)):
        with pytest.raises(CommandFailed, match=r"^the (user name|password) "):
            find(None, None, username, password)


def test_options_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """And another host is not told the password."""
    monkeypatch.setenv("PUBSUB_URL", "mqtt://u:p@h:1")
    assert find(None, 2, None, None, 9) == Address(
        host="h", port=2, username="u", password="p", keep_alive_s=9
    )
    assert find(None, None, "v", "q") == Address(host="h", port=1, username="v", password="q")
    assert find("other", None, None, None) == Address(host="other", port=1)


@pytest.mark.parametrize(
    "url", ["h:1883", "mqtts://h", "mqtt://", "mqtt://h:0", "mqtt://h:x", "mqtt://h/t", "h"]
)
def test_what_is_no_url_of_a_broker_is_a_usage_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_URL", url)
    with pytest.raises(CommandFailed, match="PUBSUB_URL must be like mqtt://") as failed:
        find(None, None, None, None)
    assert failed.value.code is Exit.USAGE
