"""Asking the broker that has a data directory, and seeing that none has it."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

from cli.operate.admin import is_running, request
from cli.terminal.failure import CommandFailed, Exit

OK = b"HTTP/1.1 202 Accepted\r\nContent-Length: 13\r\n\r\n"


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], list[bytes]]]:
    """Let the next request to the socket in `tmp_path` be answered; what was asked."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "admin.sock"))
    listener.listen()
    threads: list[Thread] = []

    def answering(answer: bytes) -> list[bytes]:
        asked: list[bytes] = []

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

        threads.append(Thread(target=serve))
        threads[-1].start()
        return asked

    yield answering
    for thread in threads:
        thread.join()
    listener.close()


def test_the_answer_is_the_json_object(
    tmp_path: Path, answering: Callable[[bytes], list[bytes]]
) -> None:
    asked = answering(OK + b'{"clients":1}')
    assert request("POST", "/stop", tmp_path) == {"clients": 1}
    assert asked[0].startswith(b"POST /stop HTTP/1.1\r\n")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"])
def test_no_answer_or_a_refusal_is_said(
    tmp_path: Path, answering: Callable[[bytes], list[bytes]], answer: bytes
) -> None:
    answering(answer)
    with pytest.raises(CommandFailed, match=f"broker on {tmp_path}/ does not answer") as failed:
        request("GET", "/status", tmp_path)
    assert failed.value.code is Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("data_dir", "command"),
    [("data", "pubsub broker start"), ("other", "pubsub broker start --data-dir other")],
)
def test_where_no_broker_is_the_way_to_start_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_dir: str, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandFailed) as failed:
        request("GET", "/status", Path(data_dir))
    assert str(failed.value) == (
        f"no broker is running on {data_dir}/; start it with: {command};"
        " or say where it keeps its log, on the machine where it runs: --data-dir DIR,"
        " or PUBSUB_DATA_DIR for every command"
    )
    assert failed.value.code is Exit.UNREACHABLE


def test_a_socket_that_a_killed_broker_left_is_no_broker(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "admin.sock"))
    with pytest.raises(CommandFailed, match="no broker is running"):
        request("GET", "/status", tmp_path)


def test_a_broker_is_there_for_as_long_as_its_lock_is_held(tmp_path: Path) -> None:
    assert not is_running(tmp_path)
    with (tmp_path / "broker.lock").open("w") as lock:
        assert not is_running(tmp_path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_running(tmp_path)
        fcntl.flock(lock, fcntl.LOCK_SH)  # somebody else who looks
        assert not is_running(tmp_path)
    assert not is_running(tmp_path)
