"""README and the reference stay true: what they name exists, and what exists is in them."""

from __future__ import annotations

import importlib
import re
import sqlite3
from configparser import ConfigParser
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

import broker
from broker.config import Config
from broker.server.reloading import AFTER_A_RESTART
from broker.settings.bounds import BOUNDS
from broker.settings.listeners import Listener
from broker.store.sqlite.files import schema
from cli.main import app
from cli.terminal.failure import Exit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
PAGES = {page.name: page.read_text(encoding="utf-8") for page in sorted(ROOT.glob("docs/*.md"))}
README_LINES_MAX = 200


def section(title: str, page: str = README) -> str:
    match = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert match, title
    return match[1]


@pytest.mark.parametrize(
    "walk", ["Follow one message", "Follow an absent subscriber that comes back"]
)
def test_a_walk_names_what_exists(walk: str) -> None:
    modules: list[Any] = []
    found = 0
    for name in re.findall(r"`([^` ]+)`", section(walk)):
        if name.endswith(".py"):
            modules.append(importlib.import_module(name.removesuffix(".py").replace("/", ".")))
            continue
        assert any(_has(module, name.split(".")) for module in modules), name
        found += 1
    assert found >= 10


def test_the_drawing_of_the_package_names_every_folder() -> None:
    assert broker.__doc__ is not None
    named = set(re.findall(r"\b(\w+)(?:/|\.py)", broker.__doc__))
    package = ROOT / "broker"
    modules = {path.stem for path in package.glob("[a-z]*.py")}
    folders = {path.parent.name for path in package.rglob("*/__init__.py")}
    assert named == modules | folders


def _has(place: object, names: list[str]) -> bool:
    for name in names:
        if not hasattr(place, name):
            return False
        place = getattr(place, name)
    return True


@pytest.mark.parametrize("setting", [field.name for field in fields(Config)])
def test_every_setting_is_listed(setting: str) -> None:
    assert f"`{setting}`" in section("Settings", REFERENCE)


def test_what_waits_for_a_restart_is_listed() -> None:
    (said,) = re.findall(
        r"^Only after a restart: (.*)$", section("Reload", REFERENCE), re.MULTILINE
    )
    assert re.findall(r"`(\w+)`", said) == [*AFTER_A_RESTART]


@pytest.mark.parametrize("key", [field.name for field in fields(Listener)])
def test_every_key_of_a_listener_is_listed(key: str) -> None:
    assert f"`{key}`" in section("Listeners", REFERENCE)


def test_the_unit_starts_a_broker_and_leaves_alone_what_a_person_must_look_at() -> None:
    unit = ConfigParser(strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as its documentation says
    match = re.search(r"```ini\n(.*?)```", section("As a service", REFERENCE), re.DOTALL)
    assert match
    unit.read_string(match[1])
    service = unit["Service"]
    program, *words = service["ExecStart"].split()
    assert program.endswith("/bin/pubsub")
    *path, command = words[:2]
    start = typer.main.get_command(app).commands[path[0]].commands[command]  # type: ignore[attr-defined]
    assert str(start.make_context(command, words[2:]).params["data_dir"]) == "/var/lib/pubsub"
    not_again = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert not_again == {Exit.USAGE, Exit.STORE_DAMAGED, Exit.NOT_AUTHORIZED}


def test_every_exit_code_is_listed() -> None:
    listed = re.findall(r"^\| (\d+) \|", section("Exit codes", REFERENCE), re.MULTILINE)
    assert [int(code) for code in listed] == sorted(Exit)


def test_the_views_have_the_columns_that_are_listed() -> None:
    connection = sqlite3.connect(":memory:")
    for migration in schema.migrations():
        connection.executescript(f"{migration.sql};")
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view'").fetchall()
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", section("Views", REFERENCE), re.MULTILINE))
    assert sorted(listed) == sorted(name for (name,) in names)
    for name, columns in listed.items():
        found = connection.execute(f"SELECT * FROM {name}").description
        assert re.findall(r"`(\w+)`", columns) == [column[0] for column in found], name
    connection.close()


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES_MAX


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_tests_and_files_that_it_names_exist(page: str) -> None:
    text = PAGES.get(page, README)
    for name in re.findall(r"`((?:tests|broker|benchmarks|docs)/[^` ]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\(([^):#]+)\)", text):
        assert (ROOT / "docs" / name).exists() or (ROOT / name).exists(), name


def test_every_command_is_listed_and_every_flag_named_exists() -> None:
    commands = section("The commands") + PAGES["commands.md"]
    listed = {name for name, _ in _commands(typer.main.get_command(app), "pubsub")}
    for name in listed:
        assert f"`{name}" in PAGES["commands.md"], name
        assert f"`{' '.join(name.split()[:2])}" in section("The commands"), name
    families = {name.rpartition(" ")[0] for name in listed} - {"pubsub"}
    for shown in re.findall(r"`(pubsub [a-z]+[^`]*)`", README + commands):
        assert shown in families or any(shown.startswith(name) for name in listed), shown
    options = {o for _, c in _commands(typer.main.get_command(app), "") for o in _options(c)}
    for flag in re.findall(r"`(--?[A-Za-z-]+)[^`]*`", commands):
        assert flag in options, flag


def _commands(command: Any, path: str) -> list[tuple[str, Any]]:
    """Every command below, with the words that call it."""
    itself = [] if isinstance(command, TyperGroup) else [(path, command)]
    if not hasattr(command, "commands"):
        return itself
    return itself + [
        found
        for name, inner in command.commands.items()
        for found in _commands(inner, f"{path} {name}")
    ]


def _options(command: Any) -> list[str]:
    return ["--help", *(option for parameter in command.params for option in parameter.opts)]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_bounds_of_settings_are_in_the_reference() -> None:
    text = section("Settings", REFERENCE).replace("\n", " ")
    for name, (least, most) in BOUNDS.items():
        assert f"`{name}` {least:,}..{most:,}" in text
