"""`pubsub pub` and `pubsub sub` at a terminal: a pseudo-terminal is typed at and read."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.broker_process import ROOT, BrokerProcess

TIMEOUT_S = 20.0


class Terminal:
    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            start_new_session=True,
        )
        os.close(theirs)
        self._unread = ""

    def type(self, line: str) -> None:
        os.write(self._ours, line.encode() + b"\n")

    def end_input(self) -> None:
        """Ctrl-D."""
        os.write(self._ours, b"\x04")

    def see(self, pattern: str) -> str:
        """Wait until what was printed since the last look has the pattern; the whole match."""
        deadline = time.monotonic() + TIMEOUT_S
        while (found := re.search(pattern, self._unread)) is None:
            left_s = deadline - time.monotonic()
            assert select.select([self._ours], [], [], max(0, left_s))[0], (
                f"{pattern!r} did not come: {self._unread!r}"
            )
            self._unread += os.read(self._ours, 10_000).decode()
        self._unread = self._unread[found.end() :]
        return found[0]

    def ended(self) -> int:
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        opened.close()


def test_what_is_published_at_one_terminal_is_delivered_at_another(
    broker: BrokerProcess, name: str
) -> None:
    port = str(broker.port)
    with terminal("sub", "-p", port) as sub, terminal("pub", "-p", port, "--id", "pub1") as pub:
        sub.see("subscribe <TOPIC>")
        sub.type(f"subscribe {name}")
        sub.see(f"subscribed to {name}\r\n> ")
        pub.see("<TOPIC> <MESSAGE>")
        pub.type(f"{name} Rainy day ahead!")
        pub.see("published\r\n> ")
        sub.see(rf">> DELIVER {name} Rainy day ahead! pub1 \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\r\n> $")
        sub.type(f"unsubscribe {name}")
        sub.see(f"unsubscribed from {name}\r\n> ")
        pub.type(f"{name} unheard")
        pub.see("published\r\n> ")
        sub.type("help")
        assert "DELIVER" not in sub.see("(?s).*subscribe <TOPIC>, unsubscribe <TOPIC>, help, quit")
        sub.type("quit")
        assert sub.ended() == 0
        pub.end_input()
        assert pub.ended() == 0


def test_errors_do_not_end_it(broker: BrokerProcess, name: str) -> None:
    port = str(broker.port)
    with terminal("sub", "-p", port) as sub, terminal("pub", "-p", port) as pub:
        sub.type("nonsense")
        sub.see("unknown command")
        sub.type("subscribe a/#/b")
        sub.see("Topic Filter")
        sub.type(f"subscribe {name}")
        sub.see(f"subscribed to {name}")
        pub.type(name)
        pub.see("a message is missing")
        pub.type("home/# x")
        pub.see("wildcard")
        pub.type(f"{name} still works")
        pub.see("published")
        sub.see(">> DELIVER .* still works ")
        sub.process.send_signal(signal.SIGINT)
        assert sub.ended() == 0


def test_both_go_on_when_the_broker_is_back(own_broker: BrokerProcess) -> None:
    port = str(own_broker.port)
    with terminal("sub", "-p", port) as sub, terminal("pub", "-p", port) as pub:
        sub.type("subscribe weather")
        sub.see("subscribed to weather")
        pub.type("weather Rainy")
        pub.see("published")
        own_broker.kill()
        pub.see("connection lost")
        pub.type("weather unheard")
        pub.see("is it running")
        sub.see("connection lost")
        own_broker.start()
        sub.see("reconnected")
        pub.type("weather Sunny")
        pub.see("published")
        sub.see(">> DELIVER weather Sunny ")
        pub.end_input()
        assert pub.ended() == 0


def test_a_payload_does_nothing_to_the_terminal(broker: BrokerProcess, name: str) -> None:
    port = str(broker.port)
    with terminal("sub", name, "-p", port) as sub:
        sub.see("subscribed to")
        subprocess.run(
            [sys.executable, "-m", "cli.main", "pub", name, "\x1b[2Jgone", "-p", port],
            check=True,
            cwd=ROOT,
        )
        sub.see(r"\\x1b\[2Jgone\r\n")
