"""Who may import whom: down the rows, within a row to the right; and what the pure ones never do.

Every import counts, also one inside a function or for types only: it says what a module knows.
Each rule is tried on a synthetic module that breaks it, so that none can go blind.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

ROWS = (
    ("cli", "server"),
    ("web", "bridge", "net"),
    ("clients", "observe", "registry", "delivery"),
    ("log", "replay", "clock"),
    ("store", "security", "mqtt", "lines", "session"),
    ("documents", "topics", "counters", "message", "config", "errors", "__init__"),
)
PURE = frozenset(ROWS[4] + ROWS[5]) - {"store"} | {"broker.replay.spec"}
"""Places, and single modules of places that are not."""
ORDER = [module for row in ROWS for module in row]
"""Down and to the right are both later in here."""

NOT_FOR_PURE = {
    "aiosqlite",
    "asyncio",
    "os",
    "random",
    "socket",
    "sqlite3",
    "ssl",
    "time",
    "uvloop",
}
MAY_USE_SSL = "broker.security.tls"
CLOCKS = {"now", "utcnow", "today"}
MUST_NOT_KNOW = {
    "log": {"session", "lines", "mqtt", "topics"},
    "store": {"session", "lines", "mqtt"},
    "mqtt": {"session", "lines"},
    "lines": {"session"},
}
"""Further down, and still none of their business: the log is not MQTT's alone."""


def complaints(sources: Mapping[str, str]) -> list[str]:
    """What is wrong with modules: dotted name (a package's ends in `__init__`) to source."""
    return [
        f"{name}: {complaint}"
        for name, source in sources.items()
        for complaint in complaints_about(name, ast.parse(source))
    ]


def complaints_about(name: str, tree: ast.Module) -> Iterator[str]:
    here = place(name)
    if here is None:
        yield "is not in the map: add it to a row"
        return
    pure = here in PURE or name in PURE
    for imported in imports(name, tree):
        root = imported.partition(".")[0]
        if root in ("broker", "cli"):
            there = place(imported)
            if there is None:
                yield f"imports {imported}, which is not in the map"
            elif ORDER.index(there) < ORDER.index(here):
                yield f"imports {imported}, which is above it or to its left"
            elif there in MUST_NOT_KNOW.get(here, ()):
                yield f"imports {imported}, which {here} must not know"
        elif root in ("tests", "benchmarks"):
            yield f"imports {imported}, which is not shipped"
        elif pure and root in NOT_FOR_PURE and (root, name) != ("ssl", MAY_USE_SSL):
            yield f"imports {imported} and is pure"
    if pure:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in CLOCKS and is_date(node.value):
                yield f"reads the clock in line {node.lineno} and is pure"


def place(name: str) -> str | None:
    """Where in the map a module belongs; None if nowhere. A package counts as one."""
    root, _, rest = name.partition(".")
    module = root if root == "cli" else rest.partition(".")[0]
    if module in ("", "__version__"):  # `import broker`, `from broker import __version__`
        module = "__init__"
    return module if module in ORDER else None


def imports(name: str, tree: ast.Module) -> Iterator[str]:
    """The dotted name of all that a module imports; of `from a import b`, `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".")[: -node.level] if node.level else []
            source = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def is_date(node: ast.expr) -> bool:
    """`datetime` or `date`, as a name or as an attribute of their module."""
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
    return name in ("datetime", "date")


def shipped() -> dict[str, str]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
        for package in ("broker", "cli")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def test_imports_go_down_or_to_the_right_and_the_pure_are_pure() -> None:
    sources = shipped()
    assert {"broker.topics", "broker.store.__init__", "cli.__init__"} <= sources.keys()
    assert complaints(sources) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("broker.topics", "from broker.errors import TopicNameInvalid"),
        ("broker.replay.placing", "from broker.mqtt import packets"),
        ("broker.server", "from broker.net.tcp import listen"),
        ("broker.mqtt.decode", "from broker.mqtt import fields\nfrom . import packets"),
        ("broker.mqtt.__init__", "from .decode import decode\nfrom ..errors import PeerError"),
        ("broker.security.tls", "import ssl"),
        ("broker.log.log", "import asyncio, time"),
        (
            "broker.replay.spec",
            "from datetime import datetime\ndatetime.fromisoformat('2025-03-14')",
        ),
        ("cli.main", "from broker import __version__, server"),
        ("broker.__init__", "__version__ = '1'"),
    ],
)
def test_what_is_allowed(name: str, source: str) -> None:
    assert complaints({name: source}) == []


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("broker.topics", "from broker.log.log import Log", "above it or to its left"),
        ("broker.topics", "import broker.net.tcp", "above it or to its left"),
        ("broker.topics", "from broker import session", "above it or to its left"),
        ("broker.mqtt.decode", "from ..session import Session", "must not know"),
        ("broker.mqtt.__init__", "from .. import lines", "must not know"),
        ("broker.__init__", "from broker.server import Server", "above it or to its left"),
        ("broker.errors", "from broker.config import Config", "above it or to its left"),
        (
            "broker.delivery.delivery",
            "def f():\n    from broker.clients.client import C",
            "above it or to its left",
        ),
        ("broker.server", "from cli.main import main", "above it or to its left"),
        (
            "broker.log.log",
            "if TYPE_CHECKING:\n    import broker.clients.client",
            "above it or to its left",
        ),
        ("broker.store.sqlite.store", "from broker.mqtt.packets import Publish", "must not know"),
        ("broker.log.log", "from broker.topics import matches", "must not know"),
        ("broker.helpers", "", "not in the map"),
        ("broker.util.text", "", "not in the map"),
        ("broker.log.log", "from broker.helpers import x", "not in the map"),
        ("broker.log.log", "from broker import helpers", "not in the map"),
        ("broker.log.log", "from benchmarks import load", "not shipped"),
        ("broker.replay.spec", "from datetime import datetime\ndatetime.now()", "reads the clock"),
        ("broker.lines.connection", "import datetime\ndatetime.date.today()", "reads the clock"),
        ("broker.security.acl", "import ssl", "is pure"),
        ("broker.config", "from os import path", "is pure"),
        ("broker.config", "import os.path", "is pure"),
    ],
)
def test_what_breaks_a_rule_is_reported(name: str, source: str, says: str) -> None:
    (complaint,) = complaints({name: source})
    assert complaint.startswith(f"{name}: ")
    assert says in complaint


@pytest.mark.parametrize("module", sorted(name.removeprefix("broker.") for name in PURE))
@pytest.mark.parametrize("used", ["asyncio", "os", "random", "socket", "sqlite3", "time"])
def test_no_pure_module_may_do_io_or_read_a_clock(module: str, used: str) -> None:
    assert complaints({f"broker.{module}": f"import {used}"}) == [
        f"broker.{module}: imports {used} and is pure"
    ]
