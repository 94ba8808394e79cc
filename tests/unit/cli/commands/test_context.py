"""`pubsub context`: from words to what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.main import app
from cli.net.contexts import Context, Contexts, load


@pytest.fixture(autouse=True)
def _config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def context(*words: str) -> None:
    app(["context", *words], standalone_mode=False)


def test_they_are_added_selected_listed_and_removed(capfd: pytest.CaptureFixture[str]) -> None:
    context("add", "home", "-L", "mqtts://ann@h", "--cert", "/c", "--key", "/k")
    home = Context(url="mqtts://h:8883", username="ann", cert="/c", key="/k")
    assert load() == Contexts({"home": home})
    context("add", "work", "-h", "w", "-p", "1", "--select")
    work = Context(url="mqtt://w:1")
    assert load() == Contexts({"home": home, "work": work}, "work")
    context("select", "home")
    context("rm", "work")
    assert load() == Contexts({"home": home}, "home")
    capfd.readouterr()
    context("ls")
    assert capfd.readouterr().out == "home\tmqtts://h:8883\tann\t*\t\n"


def test_a_host_may_have_its_port() -> None:
    context("add", "home", "-h", "h:1")
    assert load() == Contexts({"home": Context(url="mqtt://h:1")})


def test_where_it_is_kept_is_told(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    context("add", "home", "-L", "mqtt://h")
    assert capfd.readouterr().err == f"kept in {tmp_path}/pubsub/contexts.toml\n"


def test_adding_again_replaces() -> None:
    context("add", "home", "-L", "mqtt://h", "--select")
    context("add", "home", "-L", "mqtt://other")
    assert load() == Contexts({"home": Context(url="mqtt://other:9000")}, "home")
