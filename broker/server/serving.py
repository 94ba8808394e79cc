"""Serving: a broker as a process: its event loop, its signals, and when the collector runs."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec

from broker.config import Config
from broker.server.ending import Ending
from broker.server.reloading import Source
from broker.server.server import STOP_TIMEOUT_S, Server
from broker.store.sqlite.files.checkpoint import tell_cost_of_readers

SWITCH_INTERVAL_S = 0.0005
"""How long the loop keeps the interpreter while the store's thread wants it. With Python's 5 ms a
busy loop holds up a commit that is through by as much; `make bench`: 5 % more throughput."""
GC_THRESHOLDS = (25_000, 2, 1000)
"""After this many new objects the cycle collector runs. Messages make no cycles. With Python's 700
it ran several times a batch; `make bench`, qos0: 10 % less CPU. After two such runs it looks at the
objects of these, about 15 ms. All there are would take seconds where clients have much, and no
client leaves a cycle (`tests/test_cycles.py`), so that is seldom."""


def run(
    config: Config,
    announce: Callable[[Server], None],
    hang_up: Callable[[], bool],
    *,
    accept_loss: bool = False,
    source: Source | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; `announce` is called when connections are accepted.

    `hang_up` is called at SIGHUP, unless that is ignored (nohup): False stops the broker.
    Otherwise the settings are read again from their `source`. `accept_loss`: start also without
    what an unclean stop left damaged.

    Raises ConfigError, StoreError.
    """
    ending = Ending()
    loop_factory = None
    if find_spec("uvloop") is not None:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with ending.listening(), asyncio.Runner(loop_factory=loop_factory) as runner:
        server = Server(config, accept_loss=accept_loss, source=source)
        runner.run(_serve(server, announce, hang_up, ending))


async def _serve(
    server: Server, announce: Callable[[Server], None], hang_up: Callable[[], bool], ending: Ending
) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        server.request_stop()
        starting.cancel()  # It may wait for another program that has locked the log.

    def asked() -> None:
        ending.expect_end(server.config.drain_timeout_s + STOP_TIMEOUT_S)
        with suppress(RuntimeError):  # The broker has ended by itself, and its loop is closed.
            loop.call_soon_threadsafe(stop)

    def on_hang_up() -> None:
        if not hang_up():
            stop()
        elif starting.done():
            server.reload()

    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, on_hang_up)
    starting = asyncio.create_task(server.start())
    ending.when_asked(asked)
    try:
        await starting
    except asyncio.CancelledError:
        return
    # What exists now lives as long as the broker: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    announce(server)
    tell_cost_of_readers()
    await server.wait_stopped()
    ending.expect_end(server.config.drain_timeout_s + STOP_TIMEOUT_S)
    await server.stop()
