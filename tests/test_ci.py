"""README says what CI runs, word for word: its sentence and `.ci/run` name the same commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

PREPARATION = ("#", "set -euo pipefail", 'cd "$(dirname "$0")/.."', "export CI=true")


def commands(script: str) -> list[str]:
    """The commands that a script runs, after preparing: what is in an `if` only installs."""
    return [
        line
        for line in re.sub(r"^if .*?^fi$", "", script, flags=re.DOTALL | re.MULTILINE).splitlines()
        if line.strip() and not line.startswith(PREPARATION)
    ]


def promised(readme: str) -> list[str]:
    """The commands in the sentence "`.ci/run` is what CI runs: `one`, then `another`."."""
    sentence = re.search(r"`\.ci/run` is what CI runs: (.*?)\.\s", readme, re.DOTALL)
    assert sentence, "README does not say what CI runs"
    return re.findall(r"`([^`]+)`", sentence[1])


def test_ci_runs_what_readme_says() -> None:
    assert promised(README) == commands(SCRIPT)


@pytest.mark.parametrize("command", commands(SCRIPT))
@pytest.mark.parametrize("instead", ["", "# {}", "{} || true", "if false; then\n    {}\nfi"])
def test_a_command_that_ci_no_longer_runs_is_missed(command: str, instead: str) -> None:
    changed = re.sub(f"^{re.escape(command)}$", instead.format(command), SCRIPT, flags=re.MULTILINE)
    assert changed != SCRIPT
    assert promised(README) != commands(changed)


def test_a_command_that_fails_ends_the_run() -> None:
    assert SCRIPT.splitlines()[2] == "set -euo pipefail"


def test_all_that_runs_alone_is_where_the_makefile_looks_for_it() -> None:
    (folder,) = re.findall(r"pytest -m alone (\S+)", (ROOT / "Makefile").read_text("utf-8"))
    mark = re.compile(r"^(@|pytestmark = )pytest\.mark\.alone", re.MULTILINE)
    tests = (ROOT / "tests").rglob("test_*.py")
    assert {path.parent for path in tests if mark.search(path.read_text("utf-8"))} == {
        ROOT / folder
    }


def test_every_test_is_in_one_place_that_make_test_runs() -> None:
    """Or `make test-cluster`; beside what runs alone, or there once more."""
    would_run = subprocess.run(
        ["make", "--dry-run", "test", "test-cluster"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    places = [
        ROOT / word
        for line in would_run.splitlines()
        if "-m pytest" in line and not re.search("-m alone| -k ", line)
        for word in re.findall(r"tests/\S+", line)
    ]
    for test in (ROOT / "tests").rglob("test_*.py"):
        assert sum(place in (test, *test.parents) for place in places) == 1, test
