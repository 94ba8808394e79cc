"""Which versions of a package pyproject.toml allows, and which one is here."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent.parent / "pyproject.toml"


def allowed(package: str) -> str:
    """The bounds of a dependency: `>=0.20,<0.23`."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    [bounds] = [
        match[1]
        for requirement in project["dependencies"]
        if (match := re.fullmatch(rf"{re.escape(package)}([^;]*)(;.*)?", requirement))
    ]
    return bounds.strip()


def installed(package: str) -> tuple[int, int]:
    """Major and minor version."""
    major, minor, *_ = version(package).split(".")
    return int(major), int(minor)
