"""`pubsub dead-letters`: what is refused before anything is looked at."""

from __future__ import annotations

from collections.abc import Callable
from inspect import unwrap
from pathlib import Path

import pytest
import typer

from cli.commands import dead_letters
from cli.options import AdminOptions


@pytest.mark.parametrize("command", [dead_letters.redrive, dead_letters.drop])
def test_all_of_them_must_be_said(command: Callable[..., None], tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="--all"):
        unwrap(command)("workers", broker=AdminOptions(data_dir=tmp_path))
    with pytest.raises(typer.BadParameter, match="--all"):
        unwrap(command)("workers", 17, all_of_them=True, broker=AdminOptions(data_dir=tmp_path))
