"""A broker as a process: this one."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.config import Config
from broker.server.ending import Ending
from broker.server.reloading import Source
from broker.server.server import Server
from broker.server.serving import GC_THRESHOLDS, SWITCH_INTERVAL_S, run
from cli.operate.admin import is_running


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(port=0, data_dir=tmp_path / "data")


@pytest.fixture
def this_process() -> Iterator[None]:
    """What `run` changes for the whole process is put back."""
    switch_interval_s, thresholds = sys.getswitchinterval(), gc.get_threshold()
    gc.unfreeze()  # conftest.py has frozen what was there before the first test, as `run` does.
    yield
    sys.setswitchinterval(switch_interval_s)
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("this_process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_comes(config: Config, number: signal.Signals) -> None:
    """And says when it can be connected to."""
    using: list[asyncio.Task[None]] = []

    async def use(server: Server) -> None:
        try:
            _, writer = await asyncio.open_connection(*server.address)
            writer.close()
        finally:
            os.kill(os.getpid(), number)

    run(config, lambda server: using.append(asyncio.create_task(use(server))), lambda: True)
    assert [task.exception() for task in using] == [None]
    assert not is_running(config.data_dir)
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    assert gc.get_threshold() == GC_THRESHOLDS
    assert gc.get_freeze_count()


@pytest.mark.usefixtures("this_process")
def test_a_signal_that_comes_when_it_has_ended_by_itself_is_no_mistake(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk fails and the operator stops it at the same moment."""
    ending = Ending()
    monkeypatch.setattr("broker.server.serving.Ending", lambda: ending)
    run(config, lambda server: server.request_stop(), lambda: True)
    ending._hear(signal.SIGTERM)


@pytest.mark.usefixtures("this_process")
def test_a_hang_up_is_asked_about_and_may_stop_it(config: Config) -> None:
    """Else settings are read again. And it is ignored where it was, as under nohup."""
    answers = [True, False]
    read: list[Config] = []

    def read_again() -> Config:
        read.append(config)
        return config

    async def hang_up() -> None:
        for left in (1, 0):
            os.kill(os.getpid(), signal.SIGHUP)
            while len(answers) > left:  # noqa: ASYNC110  A signal handler of the loop has no event.
                await asyncio.sleep(0)
            while not read:  # noqa: ASYNC110
                await asyncio.sleep(0)

    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Ignored where the tests run under nohup.
    using: list[asyncio.Task[None]] = []
    run(
        config,
        lambda _: using.append(asyncio.create_task(hang_up())),
        lambda: answers.pop(0),
        source=Source(read_again),
    )
    assert answers == []
    assert read == [config]
    assert not is_running(config.data_dir)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        async def stop(server: Server) -> None:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0)
            server.request_stop()

        run(config, lambda server: using.append(asyncio.create_task(stop(server))), answers.pop)
    finally:
        signal.signal(signal.SIGHUP, before)
