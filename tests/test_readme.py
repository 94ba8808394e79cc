"""README stays true: the walk names what exists, every setting and command is there as it is."""

from __future__ import annotations

import importlib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer

from broker.config import Config
from cli.main import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert match, title
    return match[1]


def test_walk_names_what_exists() -> None:
    modules: list[Any] = []
    found = 0
    for name in re.findall(r"`([^` ]+)`", section("Follow one message")):
        if name.endswith(".py"):
            modules.append(importlib.import_module(name.removesuffix(".py").replace("/", ".")))
            continue
        assert any(_has(module, name.split(".")) for module in modules), name
        found += 1
    assert found > 15


def _has(place: object, names: list[str]) -> bool:
    for name in names:
        if not hasattr(place, name):
            return False
        place = getattr(place, name)
    return True


@pytest.mark.parametrize("setting", [field.name for field in fields(Config)])
def test_every_setting_is_listed(setting: str) -> None:
    assert f"`{setting}`" in section("Limits and defaults")


def test_tests_and_files_that_it_names_exist() -> None:
    for name in re.findall(r"`((?:tests|broker|benchmarks|docs)/[^` ]+)`", README):
        assert (ROOT / name).exists(), name


def test_every_command_is_listed_and_every_flag_named_exists() -> None:
    commands = section("The commands")
    listed = {name for name, _ in _commands(typer.main.get_command(app), "pubsub")}
    for name in listed:
        assert name in commands, name
    for shown in re.findall(r"`(pubsub [a-z]+[^`]*)`", README):
        assert any(shown.startswith(name) for name in listed), shown
    options = {o for _, c in _commands(typer.main.get_command(app), "") for o in _options(c)}
    for flag in re.findall(r"`(--?[A-Za-z-]+)[^`]*`", commands):
        assert flag in options, flag


def _commands(command: Any, path: str) -> list[tuple[str, Any]]:
    """Every command below, with the words that call it."""
    if not hasattr(command, "commands"):
        return [(path, command)]
    return [
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
