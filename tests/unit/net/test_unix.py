from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import ConfigError
from broker.net.unix import SOCKET_PATH_BYTES_MAX, listen, reachable


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, whose own path is longer than a socket's may be."""
    here = tmp_path / ("d" * SOCKET_PATH_BYTES_MAX)
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def listener(here: Path) -> Iterator[socket.socket]:
    with listen(here / "s.sock") as listener:
        yield listener


def test_a_path_is_given_in_its_shorter_form(here: Path) -> None:
    assert reachable(here / "s.sock") == "s.sock"
    assert reachable(Path("s.sock")) == "s.sock"
    assert reachable(Path("/run/s.sock")) == "/run/s.sock"


@pytest.mark.parametrize(("letter", "letters"), [("x", 103), ("é", 51)])
def test_a_path_may_have_as_many_bytes_as_the_smallest_system_allows(
    here: Path, letter: str, letters: int
) -> None:
    longest = letter * letters
    assert reachable(here / longest) == longest
    with pytest.raises(ConfigError) as raised:
        reachable(here / (longest + "xx"), setting="unix_socket")
    assert (raised.value.key, raised.value.value) == ("unix_socket", str(here))
    assert "is too long for a Unix socket (103 bytes" in raised.value.remedy


def test_only_its_owner_may_open_it(here: Path, listener: socket.socket) -> None:
    assert stat.S_IMODE((here / "s.sock").stat().st_mode) == 0o600


def test_the_umask_is_as_before(here: Path) -> None:
    before = os.umask(0o027)
    try:
        listen(here / "s.sock").close()
        with pytest.raises(ConfigError):
            listen(here / "missing" / "s.sock")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_who_connects_reaches_it_and_accepting_does_not_block(
    here: Path, listener: socket.socket
) -> None:
    listener.listen()
    with pytest.raises(BlockingIOError):
        listener.accept()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("s.sock")
        listener.accept()[0].close()


def test_what_a_broker_that_is_gone_left_is_replaced(here: Path, listener: socket.socket) -> None:
    listener.close()
    assert (here / "s.sock").is_socket()
    with listen(here / "s.sock") as again:
        again.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("s.sock")


def test_where_no_socket_can_be_the_setting_is_named(here: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        listen(here / "missing" / "s.sock")
    assert raised.value.key == "data_dir"
    assert raised.value.remedy == "cannot hold s.sock: No such file or directory"
