"""A broker elsewhere: what it is told of who asks, and what is said of its answers."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import pytest

from cli.net.address import Address, Tls
from cli.operate.remote import Remote
from cli.terminal.failure import Exit


def remote(username: str | None = None, password: str | None = None) -> Remote:
    address = Address(host="h", port=8884, username=username, password=password, tls=Tls())
    return Remote(address)


def test_a_login_goes_in_the_header_and_none_without_one() -> None:
    assert remote("ann", "s:é").headers == {"Authorization": "Basic YW5uOnM6w6k="}
    assert remote("ann").headers == {"Authorization": "Basic YW5uOg=="}
    assert remote(None, "token").headers == {"Authorization": "Basic OnRva2Vu"}
    assert remote().headers == {}
    tls = Tls(cert=Path("c"))
    assert Remote(Address(host="h", password="x", tls=tls)).headers == {}


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "no broker answers at h:8884"),
        (HTTPException("400 Bad Request"), 'protocols = \\["admin"\\]'),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_no_answer(error: OSError | HTTPException, says: str) -> None:
    failed = remote().failed(error)
    assert failed.code is Exit.UNREACHABLE
    with pytest.raises(type(failed), match=says):
        raise failed


@pytest.mark.parametrize(
    ("who", "status", "says"),
    [
        (remote(), 401, "refused: why; say who administers"),
        (remote("ann"), 401, "refused: why; ann gave no password"),
        (remote("ann", "x"), 401, "refused: why$"),
        (remote("ann", "x"), 403, "refused it to ann: why; remedy$"),
        (remote(), 403, "refused it to this certificate's user: why"),
    ],
)
def test_a_refusal_is_77(who: Remote, status: int, says: str) -> None:
    failed = who.refused(status, "why", "remedy")
    assert failed.code is Exit.NOT_AUTHORIZED
    with pytest.raises(type(failed), match=says):
        raise failed
