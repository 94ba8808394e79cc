"""The header of a proxy: taken only whole, only where it is wanted, and of bounded size."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config import Config
from broker.net.proxied import REST_BYTES_MAX, SIGNATURE, Header, NoHeader, header_of
from broker.settings.listeners import Listener
from tests.support.certificates import Network
from tests.support.clock import FakeClock
from tests.support.dialled import dialled
from tests.support.tls_client import TlsClient

V4 = bytes((192, 0, 2, 7, 127, 0, 0, 1)) + (50_000).to_bytes(2, "big") + (9000).to_bytes(2, "big")
V6 = bytes.fromhex("20010db8" + "00" * 11 + "07") + bytes(16) + b"\xc3\x50\x23\x28"


def header(command: int, family: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes((0x20 | command, family)) + len(rest).to_bytes(2, "big") + rest


@pytest.mark.parametrize(
    ("sent", "source"),
    [
        (header(1, 0x11, V4), ("192.0.2.7", 50_000)),
        (header(1, 0x11, V4 + b"\x03\0\x04abcd"), ("192.0.2.7", 50_000)),
        (header(1, 0x21, V6), ("2001:db8::7", 50_000)),
        (header(0, 0x00, b""), None),
        (header(0, 0x11, V4), None),
        (header(1, 0x00, b""), None),
        (header(1, 0x31, bytes(216)), None),
    ],
)
def test_who_the_proxy_stands_for(sent: bytes, source: tuple[str, int] | None) -> None:
    for end in range(len(sent)):
        assert header_of(sent[:end]) is None
    assert header_of(sent + b"more") == Header(len(sent), source)


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"\x10", "does not begin with"),
        (b"PROXY TCP4 ", "does not begin with"),
        (SIGNATURE[:11] + b"x", "does not begin with"),
        (SIGNATURE + b"\x31\x11\0\x0c", "version and command 0x31"),
        (SIGNATURE + b"\x22\x11\0\x0c", "version and command 0x22"),
        (SIGNATURE + b"\x21\x11" + (REST_BYTES_MAX + 1).to_bytes(2, "big"), "1025 bytes; at most"),
        (header(1, 0x11, V4[:-1]), "too short for its addresses"),
        (header(1, 0x21, V4), "too short for its addresses"),
    ],
)
def test_what_is_none_is_refused(sent: bytes, why: str) -> None:
    with pytest.raises(NoHeader, match=why):
        header_of(sent)


@given(st.binary(max_size=60), st.booleans())
def test_anything_else_is_whole_unfinished_or_refused(data: bytes, begins_well: bool) -> None:
    sent = SIGNATURE + data if begins_well else data
    try:
        found = header_of(sent)
    except NoHeader:
        return
    if found is None:
        assert len(sent) < 16 + REST_BYTES_MAX
    else:
        assert 16 <= found.size <= len(sent)


# At a listener

PROXIED = Listener(port=0, proxy_protocol=True)


async def test_the_clients_address_is_that_which_the_proxy_names(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, listeners=(PROXIED,))
    async with asyncio.timeout(20), dialled(config) as (server, reader, writer):
        sent = header(1, 0x11, V4) + b"CONFIRM\n"
        for position in range(len(sent)):
            writer.write(sent[position : position + 1])
            await asyncio.sleep(0)
        assert await reader.readline() == b"OK\n"
        (connection,) = server._connections
        assert (connection.peer.address, connection.peer.host) == ("192.0.2.7:50000", "192.0.2.7")


async def test_it_comes_before_tls(tmp_path: Path) -> None:
    network = Network(tmp_path)
    config = Config(data_dir=tmp_path / "d", listeners=(network.listener(proxy_protocol=True),))
    async with asyncio.timeout(20), dialled(config) as (server, reader, writer):
        client = TlsClient(network.client_context())
        client.shake_hands()
        writer.write(header(1, 0x21, V6) + client.sent())
        while not client.shake_hands(await reader.read(10_000)):
            pass
        writer.write(client.sent() + client.says(b"CONFIRM\n"))
        heard = b""
        while not heard:
            heard = client.hears(await reader.read(10_000))
        assert heard == b"OK\n"
        (connection,) = server._connections
        assert connection.peer.address == "[2001:db8::7]:50000"


@pytest.mark.parametrize("listener", [PROXIED, Listener(port=0)])
async def test_with_and_without_only_what_is_wanted_is_taken(
    tmp_path: Path, listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that could name its own address would escape what is counted by address."""
    caplog.set_level("INFO")
    config = Config(data_dir=tmp_path, listeners=(listener,))
    async with asyncio.timeout(20), dialled(config) as (server, reader, writer):
        writer.write(b"CONFIRM\n" if listener.proxy_protocol else header(1, 0x11, V4))
        if listener.proxy_protocol:
            assert await reader.read() == b""
            assert "it does not begin with the header of a proxy" in caplog.text
        else:
            await reader.readline()
            assert not any("192.0.2.7" in each.peer.address for each in server._connections)
            assert "192.0.2.7" not in caplog.text


async def test_a_header_has_to_come_in_time(tmp_path: Path) -> None:
    clock = FakeClock()
    config = Config(data_dir=tmp_path, listeners=(PROXIED,))
    async with asyncio.timeout(20), dialled(config, clock=clock) as (server, reader, writer):
        writer.write(SIGNATURE)
        while not server.counters.bytes_in:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0)
        clock.advance(config.connect_timeout_s)
        assert await reader.read() == b""
