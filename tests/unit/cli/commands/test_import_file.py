"""`pubsub import`: which file, and to which broker, from its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app
from cli.net.address import Address


def test_the_options_say_what_and_where(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(
        "cli.log.import_file.import_file", lambda *args, **how: done.append((args, how))
    )
    app(["import", "x.csv", "-p", "1884", "--again", "--no-retain"], standalone_mode=False)
    how = {"again": True, "no_retain": True, "as_json": False}
    assert done == [((Path("x.csv"), "csv", Address(port=1884)), how)]
