"""Which broker, and as whom: options before the environment, that before the context."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.net import contexts
from cli.net.address import Address, Tls
from cli.net.contexts import Context, Contexts
from cli.net.sources import find, find_without_topic, of_options, url_of
from cli.options import BrokerOptions
from cli.terminal.failure import CommandFailed, Exit


def found(**options: object) -> Address:
    return find(BrokerOptions(**options))[0]  # type: ignore[arg-type]  # as the options


def refused(**options: object) -> str:
    with pytest.raises(CommandFailed) as failed:
        found(**options)
    assert failed.value.code is Exit.USAGE
    return str(failed.value)


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("URL", "USER", "PASSWORD_FILE", "CAFILE"):
        monkeypatch.delenv(f"PUBSUB_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("", Address()),
        ("mqtt://h", Address(host="h")),
        ("mqtt://h:1883/", Address(host="h", port=1883)),
        ("tcp://[::1]:1", Address(host="::1", port=1)),
        ("mqtt://me%40x:p%3A@h", Address(host="h", username="me@x", password="p:")),
        ("mqtts://h", Address(host="h", port=8883, tls=Tls())),
        ("ws://h:80", Address(host="h", port=80, websocket="/mqtt")),
        ("wss://h/a/b", Address(host="h", port=8883, tls=Tls(), websocket="/a/b")),
    ],
)
def test_the_environment_finds_the_broker(
    url: str, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_URL", url)
    assert found() == address
    if url:
        assert found(url=url) == address


def test_a_url_of_the_options_may_name_a_topic_but_not_of_a_websocket() -> None:
    assert find(BrokerOptions(url="mqtts://h/home/#"))[1] == "home/#"
    assert find(BrokerOptions(url="wss://h/home"))[1] is None
    with pytest.raises(CommandFailed, match="--url must be like"):
        find_without_topic(BrokerOptions(url="mqtt://h/home"))
    assert find_without_topic(BrokerOptions(url="mqtt://h")) == Address(host="h")


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64, "caf\udce9", "a b\ud800"])
def test_what_cannot_be_a_host_is_a_usage_error(host: str) -> None:
    assert "is no host name" in refused(host=host)


@pytest.mark.parametrize("host", ["localhost", "::1", "fe80::1%eth0", "bücher.example", "10.0.0.1"])
def test_what_can_be_a_host_is_taken_as_it_is(host: str) -> None:
    assert found(host=host).host == host


@pytest.mark.parametrize(
    "url",
    [
        "h:1883",
        "http://h",
        "mqtt://",
        "mqtt://h:0",
        "mqtt://h:x",
        "mqtt://h/t",
        "h",
        "mqtt://h?a=b",
    ],
)
def test_what_is_no_url_of_a_broker_is_a_usage_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_URL", url)
    assert refused().startswith("PUBSUB_URL must be like mqtt://")


def test_a_refused_url_is_not_shown_as_it_may_have_a_password() -> None:
    assert "secret" not in refused(url="http://user:secret@h")


def test_options_go_before_the_environment_and_another_host_is_not_told_the_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PUBSUB_URL", "mqtt://u:p@h:1")
    assert found(port=2) == Address(host="h", port=2, username="u", password="p")
    assert found(username="v", password="q") == Address(
        host="h", port=1, username="v", password="q"
    )
    assert found(username="v") == Address(host="h", port=1, username="v"), "not v with u's password"
    assert found(host="other") == Address(host="other", port=1)
    assert found(url="mqtt://other") == Address(host="other")


def test_the_environment_has_user_password_and_authority_beside_the_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    monkeypatch.setenv("PUBSUB_URL", "mqtts://h")
    monkeypatch.setenv("PUBSUB_USER", "ann")
    monkeypatch.setenv("PUBSUB_PASSWORD_FILE", str(password))
    monkeypatch.setenv("PUBSUB_CAFILE", "ca.crt")
    tls = Tls(cafile=Path("ca.crt"))
    assert found() == Address(host="h", port=8883, username="ann", password="secret", tls=tls)
    assert found(cafile=Path("other.crt")).tls == Tls(cafile=Path("other.crt"))
    assert found(host="other") == Address(host="other", port=8883, tls=tls)
    monkeypatch.setenv("PUBSUB_URL", "mqtt://h")
    assert found().tls is None, "the URL says so"
    monkeypatch.delenv("PUBSUB_URL")
    assert found(host="other").username == "ann", "they were given with no host"
    assert found().tls == tls


def test_options_of_tls_ask_for_tls() -> None:
    file = Path("f")
    assert found(host="h", cafile=file) == Address(host="h", port=8883, tls=Tls(cafile=file))
    assert found(host="h", port=1, cert=file, key=file).tls == Tls(cert=file, key=file)
    assert found(host="h", insecure=True).tls == Tls(insecure=True)
    assert "--url is without TLS" in refused(url="mqtt://h", cafile=file)
    assert "--key is the key of a --cert" in refused(key=file)


def test_a_url_and_other_options_must_not_say_the_same() -> None:
    assert "--url has its own host: use one" in refused(url="mqtt://h", host="h")
    assert "--url has its own port: use one" in refused(url="mqtt://h", port=1)
    assert "--url has its own username: use one" in refused(url="mqtt://u@h", username="u")
    assert found(url="mqtt://h", username="u", password="p") == Address(
        host="h", username="u", password="p"
    )
    assert "use one of -P, --password-file" in refused(password="p", password_stdin=True)


def test_the_selected_context_counts_where_nothing_else_names_a_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = Context(url="mqtts://h:1", username="ann", password="secret", cafile="/ca.crt")
    contexts.save(Contexts({"home": context}, "home"))
    home = Address(
        host="h", port=1, username="ann", password="secret", tls=Tls(cafile=Path("/ca.crt"))
    )
    assert found() == home
    assert found(port=2).port == 2
    assert found(username="bob") == Address(host="h", port=1, username="bob", tls=home.tls)
    assert found(host="other") == Address(host="other")
    monkeypatch.setenv("PUBSUB_URL", "mqtt://u:p@other")
    assert found() == Address(host="other", username="u", password="p")
    assert found(context="home") == home, "an option goes before the environment"
    assert "--context names the broker already" in refused(context="home", host="h")


def test_a_context_is_only_looked_for_where_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.net.contexts.load", lambda: pytest.fail("looked"))
    found(host="h")
    monkeypatch.setenv("PUBSUB_URL", "mqtt://h")
    found()


@pytest.mark.parametrize(
    "url", ["mqtt://h:9000", "mqtts://[::1]:1", "wss://h:8883/a", "ws://h:1/b"]
)
def test_a_url_can_be_made_again(url: str) -> None:
    assert url_of(of_options(BrokerOptions(url=url))[0]) == url


def test_what_no_packet_can_hold_is_a_usage_error() -> None:
    assert "the user name must have at most" in refused(username="x" * 65_536)
    assert "the password is not valid UTF-8" in refused(username="u", password="\udcff")


def test_nothing_that_is_shown_of_them_has_the_password() -> None:
    options = BrokerOptions(url="mqtt://u:secret@h")
    said, _ = of_options(options)
    for one in (options, BrokerOptions(password="secret"), said, find(options)):
        assert "secret" not in repr(one)


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("h:27880", ("h", 27880)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 9000)),
        ("::1", ("::1", 9000)),
        ("h", ("h", 9000)),
    ],
)
def test_a_host_may_have_its_port(host: str, found: tuple[str, int]) -> None:
    address, _ = find(BrokerOptions(host=host))
    assert (address.host, address.port) == found


@pytest.mark.parametrize("host", ["h:99999", ":5", ""])
def test_a_port_that_is_none_is_said(host: str) -> None:
    with pytest.raises(CommandFailed, match="no host name"):
        find(BrokerOptions(host=host))
