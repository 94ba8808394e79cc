"""TLS of the commands: what is wrong is said in one sentence, with what helps."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cli.net.address import Address, Tls
from cli.net.client import Client
from cli.net.tls import context_of
from cli.terminal.failure import CommandFailed, Exit
from tests.support.certificates import Files, Network
from tests.support.tls_server import TlsServer

CONNACK = bytes.fromhex("20 03 00 00 00")
Serve = Callable[..., int]


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Network:
    """Another authority."""
    (tmp_path / "other").mkdir()
    return Network(tmp_path / "other")


@pytest.fixture
def serve(network: Network) -> Iterator[Serve]:
    """Starts one, and gives its port."""
    servers: list[TlsServer] = []

    def start(certificate: Files | None = None, **settings: object) -> int:
        servers.append(
            TlsServer(certificate or network.server, answer=CONNACK, **settings)  # type: ignore[arg-type]  # as TlsServer's
        )
        return servers[-1].port

    yield start
    for server in servers:
        server.close()


def connect(port: int, host: str = "127.0.0.1", **tls: object) -> None:
    address = Address(host=host, port=port, tls=Tls(**tls))  # type: ignore[arg-type]  # as Tls's
    client = Client(address, "me")
    try:
        client.open(clean_start=True)
    finally:
        client.close()


def refused(port: int, host: str = "127.0.0.1", **tls: object) -> CommandFailed:
    with pytest.raises(CommandFailed) as failed:
        connect(port, host, **tls)
    return failed.value


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not close its end is not waited for."""
    monkeypatch.setattr("cli.net.burst.CLOSE_TIMEOUT_S", 0.05)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_broker_whose_authority_is_known_is_talked_to(
    serve: Serve, network: Network, version: ssl.TLSVersion
) -> None:
    connect(serve(version=version), cafile=network.ca)


def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    serve: Serve, stranger: Network
) -> None:
    port = serve()
    for cafile in (None, stranger.ca):
        failed = refused(port, cafile=cafile)
        assert str(failed) == (
            f"no TLS connection with the broker at 127.0.0.1:{port}: nobody that is trusted here"
            " vouches for its certificate; if it is your own, give the certificate of its"
            " authority: --cafile ca.crt"
        )
        assert failed.code is Exit.UNREACHABLE
    connect(port, insecure=True)


def test_a_certificate_for_another_name_is_not_trusted(serve: Serve, network: Network) -> None:
    port = serve(network.named("broker.example"))
    said = str(refused(port, "localhost", cafile=network.ca))
    assert "its certificate is not for the name localhost; use the name that it is for" in said
    said = str(refused(port, cafile=network.ca))
    assert "its certificate is not for the address 127.0.0.1; use the name" in said


def test_an_expired_certificate_is_not_trusted(serve: Serve, network: Network) -> None:
    port = serve(network.renewed(days=-1))
    said = str(refused(port, cafile=network.ca))
    assert "its certificate has expired; the broker needs a new one" in said


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_broker_that_wants_a_client_certificate_gets_it_or_that_is_said(
    serve: Serve, network: Network, stranger: Network, version: ssl.TLSVersion
) -> None:
    port = serve(client_ca=network.ca, version=version)
    failed = refused(port, cafile=network.ca)
    assert "it wants a client certificate; give one: --cert client.crt --key" in str(failed)
    assert failed.code is Exit.NOT_AUTHORIZED
    other = stranger.client("other")
    failed = refused(port, cafile=network.ca, cert=other.certificate, key=other.key)
    assert "it does not trust the client certificate" in str(failed)
    assert failed.code is Exit.NOT_AUTHORIZED
    mine = network.client("me")
    connect(port, cafile=network.ca, cert=mine.certificate, key=mine.key)


def test_a_port_without_tls_is_told() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        said = str(refused(listener.getsockname()[1]))
        thread.join()
    assert "it answers without TLS; use mqtt:// and no --cafile there" in said


def test_a_port_that_closes_at_once_may_have_no_tls() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        said = str(refused(listener.getsockname()[1]))
        thread.join()
    assert "closed the connection during the handshake; has that port TLS?" in said


def test_a_plain_client_on_a_port_with_tls_is_told_to_use_it(serve: Serve) -> None:
    client = Client(Address(port=serve()), "me")
    with closing(client), pytest.raises(CommandFailed, match=r"does that port want TLS \(mqtts://"):
        client.open(clean_start=True)


def test_files_that_cannot_be_used_are_a_usage_error(network: Network, tmp_path: Path) -> None:
    mine, other = network.client("me"), network.client("other")
    empty = tmp_path / "empty"
    empty.touch()
    for tls, said in (
        (Tls(cafile=tmp_path / "none"), r"none: No such file or directory"),
        (Tls(cafile=empty), r"empty: there is no certificate in PEM in it"),
        (Tls(cert=mine.certificate), r"me.crt: there is no certificate with its key in PEM in it"),
        (
            Tls(cert=mine.certificate, key=other.key),
            r"other.key: the key is not that of the certificate",
        ),
    ):
        with pytest.raises(CommandFailed, match=said) as failed:
            context_of(Address(tls=tls))
        assert failed.value.code is Exit.USAGE


def test_a_key_with_a_passphrase_is_told_and_nobody_is_asked(
    network: Network,
) -> None:
    from cryptography.hazmat.primitives import serialization

    mine = network.client("me")
    key = serialization.load_pem_private_key(mine.key.read_bytes(), None)
    mine.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(CommandFailed, match="its key has a passphrase"):
        context_of(Address(tls=Tls(cert=mine.certificate, key=mine.key)))


def test_no_version_before_1_2_is_spoken() -> None:
    assert context_of(Address(tls=Tls())).minimum_version is ssl.TLSVersion.TLSv1_2
