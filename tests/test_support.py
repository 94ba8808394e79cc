"""What tests share is in `tests/support/`, or beside them in a module that is no test.

Each rule is tried on a synthetic module that breaks it, so that none can go blind.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.architecture import Module, Modules, parse

ROOT = Path(__file__).parent.parent

FOR_BENCHMARKS = "tests.support.clock."
"""Counting what a message costs wants a clock that stands still, too."""
MAY_IMPORT_BENCHMARKS = ("tests.unit.benchmarks.", "tests.test_work")


def imports_no_test(modules: Modules) -> Iterator[str]:
    """From `tests.support`, from its own folder or one below; never from a test or a conftest."""
    for module in modules.values():
        folder = module.name.rpartition(".")[0]
        for imported in imported_from_tests(module):
            if any(part == "conftest" or part.startswith("test_") for part in imported.split(".")):
                yield f"{module.name}: imports {imported}, which is a test or a conftest"
            elif not imported.startswith(("tests.support.", f"{folder}.")):
                yield f"{module.name}: imports {imported}, which is not in tests/support"


def benchmarks_stand_apart(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        if module.name.startswith("benchmarks."):
            for imported in imported_from_tests(module):
                if not imported.startswith(FOR_BENCHMARKS):
                    yield f"{module.name}: imports {imported}, which is for tests"
        elif module.name.startswith("tests.") and not module.name.startswith(MAY_IMPORT_BENCHMARKS):
            for imported in module.imports:
                if imported.startswith("benchmarks."):
                    yield f"{module.name}: imports {imported}, and is no test of it"


def a_class_name_has_one_meaning(modules: Modules) -> Iterator[str]:
    """Classes of tests aside, whose names only group them."""
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for module in modules.values():
        for node in module.statements:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("Test"):
                homes[node.name].append(module.name)
    for name, places in homes.items():
        if len(places) > 1 and any(place.startswith("tests.") for place in places):
            yield f"{places[-1]}: {name} is also defined in {places[0]}"


def imported_from_tests(module: Module) -> list[str]:
    return [imported for imported in module.imports if imported.startswith("tests.")]


RULES = (imports_no_test, benchmarks_stand_apart, a_class_name_has_one_meaning)


def complaints(modules: Modules) -> list[str]:
    return [complaint for rule in RULES for complaint in rule(modules)]


def sources(*folders: str) -> dict[str, str]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def test_the_rules_hold() -> None:
    tests = parse(sources("tests"))
    assert {"tests.support.world", "tests.conftest", "tests.test_support"} <= tests.keys()
    assert complaints(tests) == []
    assert list(benchmarks_stand_apart(parse(sources("benchmarks")))) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("tests.e2e.test_flow", "from tests.support.raw_client import RawClient"),
        ("tests.e2e.test_paho", "from tests.e2e.behaviour import Behaviour"),
        ("tests.e2e.test_paho", "from .behaviour import Behaviour"),
        ("tests.conftest", "from tests.conformance.table import summary"),
        ("tests.unit.benchmarks.test_scale", "from benchmarks.scale import main"),
        ("tests.test_work", "from benchmarks.work import Counts"),
        ("benchmarks.in_process", "from tests.support.clock import FakeClock"),
        ("tests.e2e.test_flow", "from broker.testing import conftest"),
    ],
)
def test_what_is_allowed(name: str, source: str) -> None:
    assert complaints(parse({name: source})) == []


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("tests.e2e.test_cli", "from tests.e2e.test_paho import Peer", "is a test or a conftest"),
        ("tests.e2e.test_cli", "from tests.e2e import test_paho", "is a test or a conftest"),
        ("tests.e2e.test_cli", "import tests.e2e.test_paho", "is a test or a conftest"),
        ("tests.e2e.test_cli", "from .test_paho import Peer", "is a test or a conftest"),
        ("tests.e2e.behaviour", "from tests.e2e.conftest import broker", "is a test or a conftest"),
        ("tests.e2e.test_cli", "from tests.crash.client import Load", "is not in tests/support"),
        ("tests.support.world", "from tests.crash.client import Load", "is not in tests/support"),
        ("tests.e2e.test_cli", "def f():\n    import tests.crash.load", "is not in tests/support"),
        ("benchmarks.load", "from tests.support.world import World", "which is for tests"),
        ("tests.unit.test_topics", "from benchmarks.load import Load", "is no test of it"),
    ],
)
def test_what_is_not_allowed(name: str, source: str, says: str) -> None:
    (complaint,) = complaints(parse({name: source}))
    assert complaint.startswith(f"{name}: ")
    assert says in complaint


def test_two_classes_of_one_name_are_told() -> None:
    twice = {"tests.a": "class Wire: ...", "tests.b": "def f():\n    class Wire: ..."}
    (complaint,) = a_class_name_has_one_meaning(parse(twice))
    assert complaint == "tests.b: Wire is also defined in tests.a"
    grouped = {"tests.a": "class TestWire: ...", "tests.b": "class TestWire: ..."}
    assert list(a_class_name_has_one_meaning(parse(grouped))) == []


def test_readme_names_every_folder_and_only_modules_that_exist() -> None:
    readme = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([^`]+)`", readme))
    folders = {f"{path.parent.name}/" for path in (ROOT / "tests").glob("*/__init__.py")}
    assert "support/" in folders
    assert folders <= named
    for name in named:
        if name.endswith(".py") and "*" not in name:
            assert (ROOT / name).exists() or any((ROOT / "tests").rglob(name)), name
