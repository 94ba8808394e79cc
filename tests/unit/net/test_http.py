"""One HTTP connection between the rim and the protocol: whose time it takes, and how it ends."""

from __future__ import annotations

import asyncio

import pytest

from broker.clients.faces import Peer
from broker.errors import NotAuthorized
from broker.message import Monotonic
from broker.net.http import HttpConnection, HttpProtocol
from tests.support.clients import Transport


class Requests:
    """A protocol that remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.told.append(transport)

    def data_received(self, data: bytes) -> None:
        self.told.append(data)

    def pause_writing(self) -> None:
        self.told.append("full")

    def resume_writing(self) -> None:
        self.told.append("room")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")

    def shutdown(self) -> None:
        self.told.append("shutdown")


class Asking:
    def __init__(self) -> None:
        self.requests, self.socket = Requests(), Transport()
        self.connection = HttpConnection(
            self._welcome, self.socket, Peer("192.0.2.1:5", "192.0.2.1"), 10.0, Monotonic(100)
        )

    def _welcome(self, connection: HttpConnection) -> HttpProtocol:
        return self.requests


def test_a_request_has_so_long_to_be_whole_and_what_we_do_meanwhile_does_not_count() -> None:
    visit = Asking()
    connection = visit.connection
    assert connection.deadline() == Monotonic(110)
    assert connection.receive(b"GET /", Monotonic(101)) == 5
    assert connection.deadline() == Monotonic(111)
    connection.works()
    assert connection.deadline() is None
    connection.goes_on(Monotonic(150))
    assert connection.deadline() == Monotonic(160)
    connection.expire(Monotonic(159))
    assert not visit.socket.closed.is_set()
    connection.answered()
    assert (connection.deadline(), connection.kept_bytes) == (None, 0)
    connection.receive(b"G", Monotonic(200))
    connection.receive(b"E", Monotonic(205))
    assert connection.deadline() == Monotonic(210)
    connection.expire(Monotonic(210))
    assert visit.socket.closed.is_set()


def test_what_comes_and_goes_passes_through() -> None:
    visit = Asking()
    visit.connection.receive(b"GET", Monotonic(1))
    visit.connection.writable(yes=False)
    visit.connection.writable(yes=True)
    visit.connection.write(bytearray(b"HTTP"))
    assert visit.requests.told == [visit.connection, b"GET", "full", "room"]
    assert visit.socket.written == b"HTTP"
    visit.connection.shut_down()
    visit.connection.lost()
    assert visit.requests.told[4:] == ["shutdown", "lost"]


def test_after_its_end_nothing_is_taken_or_sent() -> None:
    visit = Asking()
    visit.connection.close()
    assert visit.connection.is_closing()
    assert visit.connection.receive(b"GET", Monotonic(1)) == 0
    visit.connection.write(b"HTTP")
    assert visit.socket.written == b""
    assert visit.requests.told == [visit.connection]
    assert not visit.connection.end_of_input()


@pytest.mark.parametrize("how", ["dismiss", "evict", "failed"])
def test_who_may_not_stay_is_cut_off(how: str) -> None:
    visit = Asking()
    assert visit.connection.end_of_input()
    match how:
        case "dismiss":
            visit.connection.dismiss(NotAuthorized("revoked"))
        case "evict":
            visit.connection.evict("too much")
        case _:
            visit.connection.failed(RuntimeError("ours"))
    assert visit.socket.aborted
    assert visit.connection.has_left()
