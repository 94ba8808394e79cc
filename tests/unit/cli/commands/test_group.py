"""`pubsub group`: what is refused before the broker is asked."""

from __future__ import annotations

from inspect import unwrap
from pathlib import Path

import pytest

from cli.commands import group
from cli.options import AdminOptions
from cli.terminal.failure import CommandFailed, Exit


@pytest.mark.parametrize("options", [{"backoff": "soon"}, {"lease": "5"}, {"backoff": "5m..1s"}])
def test_a_period_that_is_none_is_refused(options: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as refused:
        unwrap(group.create)("workers", "jobs/#", broker=AdminOptions(data_dir=tmp_path), **options)
    assert refused.value.code is Exit.USAGE


@pytest.mark.parametrize("name", ["", "a/b", "a+", "#"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no name of a group"):
        unwrap(group.create)(name, "jobs/#", broker=AdminOptions(data_dir=tmp_path))


def test_without_a_log_it_says_how_to_start_a_broker(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="pubsub broker start") as refused:
        unwrap(group.create)("workers", "jobs/#", broker=AdminOptions(data_dir=tmp_path))
    assert refused.value.code is Exit.NOTHING_THERE
