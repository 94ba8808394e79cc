"""What is said when a broker is not there or does not let us in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from cli.net.address import Address, Tls, Will, check_string, first_that_answers
from cli.terminal.failure import CommandFailed, Exit

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


@pytest.mark.parametrize(
    ("username", "password", "remedy"),
    [
        (
            None,
            None,
            "no user name was given: use -u NAME with --password-file or --password-stdin",
        ),
        ("ann", None, "ann gave no password: use --password-file FILE or --password-stdin"),
        (
            "ann",
            "x",
            "is the password of ann right, and may ann use this client identifier (--id)?",
        ),
    ],
)
def test_a_refusal_says_which_credential_is_missing(
    username: str | None, password: str | None, remedy: str
) -> None:
    address = Address(host="h", port=1, username=username, password=password)
    failed = address.refused("Not authorized", not_authorized=True)
    said = "the broker at h:1 refused the connection: Not authorized"
    assert (str(failed), failed.code) == (f"{said}; {remedy}", Exit.NOT_AUTHORIZED)


def test_another_refusal_is_not_about_credentials() -> None:
    failed = ADDRESS.refused("Server busy", not_authorized=False)
    assert str(failed) == "the broker at h:1 refused the connection: Server busy"
    assert failed.code is Exit.FAILED


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


def test_a_right_that_is_missing_is_named() -> None:
    ann = Address(username="ann")
    assert ann.right_to("publish", "a") == "ann needs the right to publish a"
    assert (
        ann.right_to("subscribe", "a", reads_history=True)
        == ann.right_to("subscribe", "$replay/-1/a").replace("$replay/-1/", "")
        == "ann needs the right to subscribe a, and to read history"
    )
    assert (
        Address().right_to("publish", "a\x1b").endswith("publish a\\x1b (or log in as another: -u)")
    )


@pytest.mark.parametrize(
    ("tls", "asks"),
    [
        (None, "does that port want TLS (mqtts://)"),
        (Tls(), "does it want a client certificate (--cert)"),
        (Tls(cert=Path("c")), "does it refuse the client certificate"),
    ],
)
def test_what_does_not_answer_may_want_something_else_of_tls(tls: Tls | None, asks: str) -> None:
    assert f"(why); {asks}, does something else" in str(Address(tls=tls).silent("why"))


def test_who_is_refused_for_want_of_tls_is_told_how_to_ask_for_it() -> None:
    error = Address().refused("this port speaks TLS only", not_authorized=False)
    assert error.code == Exit.UNREACHABLE
    assert "ask for TLS with: -L mqtts://..." in str(error)
    other = Address(tls=Tls()).refused("this port speaks TLS only", not_authorized=False)
    assert other.code == Exit.FAILED


def test_neither_password_nor_payload_is_in_what_is_shown_of_it() -> None:
    will = Will("t", b"secret", 0, retain=False)
    assert "secret" not in repr(Address(password="secret", will=will))


def test_several_brokers_are_named_with_commas() -> None:
    several = Address(host="a, b:9001,::1,[::2],[::3]:1", port=7).brokers()
    assert [(each.host, each.port) for each in several] == [
        *(("a", 7), ("b", 9001)),
        *(("::1", 7), ("::2", 7), ("::3", 1)),
    ]
    several = Address(host="a,b:9001").brokers()
    assert several[0].brokers() == several[1].brokers() == several
    assert Address(host="a", username="u").brokers() == [Address(host="a", username="u")]


def test_the_first_broker_that_answers_is_it_and_a_refusal_is_an_answer() -> None:
    asked: list[str] = []

    def open_one(address: Address) -> str:
        asked.append(address.host)
        if address.host.startswith("down"):
            raise address.unreachable("no")
        if address.host == "refuses":
            raise address.refused("Not authorized", not_authorized=True)
        return address.host

    assert first_that_answers(Address(host="down1,up,down2"), open_one) == "up"
    assert asked == ["down1", "up"]
    for hosts, code in (("down1,refuses,up", Exit.NOT_AUTHORIZED), ("down1,down2", 69)):
        with pytest.raises(CommandFailed) as failed:
            first_that_answers(Address(host=hosts), open_one)
        assert failed.value.code == code


@pytest.mark.parametrize("hosts", ["a,", ",", "a,b:0", "a,b:70000"])
def test_what_names_no_broker_is_refused(hosts: str) -> None:
    with pytest.raises(CommandFailed, match="does not name brokers") as failed:
        Address(host=hosts).brokers()
    assert failed.value.code == Exit.USAGE


def test_a_broker_that_refers_to_another_is_followed_so_often_only() -> None:
    asked: list[str] = []

    def open_one(address: Address) -> str:
        asked.append(str(address))
        if address.host == "there":
            return address.host
        raise address.refused("Use another", not_authorized=False, other=refers[address.host])

    refers = {"a": "", "b": "there:7", "c": "c", "d": "a:b:c"}
    assert first_that_answers(Address(host="a,b", port=1), open_one) == "there"
    assert asked == ["a:1", "b:1", "there:7"]
    asked.clear()
    for host in "cd":
        with pytest.raises(CommandFailed, match="Use another"):
            first_that_answers(Address(host=host), open_one)
    assert 1 < len(asked) < 20


@pytest.mark.parametrize(
    ("code", "reference", "brokers"),
    [
        (0x8B, "c:3", ["a:1", "b:2"]),
        (0x9C, "c:3 d:4", ["c:3", "a:1", "b:2"]),
        (0x9C, "[::1]", ["[::1]:1", "a:1", "b:2"]),
        (0x9C, "b:2", ["b:2", "a:1"]),
        (0x9C, None, ["a:1", "b:2"]),
        (0x9D, "c:3", ["c:3", "b:2"]),
        (0x9D, None, ["b:2"]),
    ],
)
def test_where_it_goes_on_when_the_broker_says_so(
    code: int, reference: str | None, brokers: list[str]
) -> None:
    said = None if reference is None else SimpleNamespace(ServerReference=reference)
    here = Address(host="a,b:2", port=1).brokers()[0]
    assert [str(each) for each in here.after(code, said).brokers()] == brokers
    assert [str(each) for each in Address().after(0x9D, None).brokers()] == ["127.0.0.1:9000"]
