"""The rules of the architecture hold, and the lists of exceptions only get shorter.

The rules are in `tests/support/architecture.py`. Each is tried on a synthetic module that breaks
it and on one that keeps it, so no rule can go blind. A test fails when a module is over a bound
and not listed, and when a listed module is no longer over it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.architecture import (
    DEFINED_IN,
    PURE_PLACES,
    REPLAY_SPEC,
    Modules,
    complaints,
    long_modules,
    parse,
    untested_modules,
    users_of_private_names,
    wide_classes,
    worse_or_better,
)

ROOT = Path(__file__).parent.parent

WIDE_CLASSES = {
    "broker.config.Config",  # Every setting: it stays.
}
UNTESTED_MODULES = {
    "broker.store.memory",  # It stays: test_contract.py tests it, beside the other stores.
}
USERS_OF_PRIVATE_NAMES = {
    "broker.store.sqlite.thread",  # Of aiosqlite.
    "cli.net.client",  # Of paho.
}
"""One module for each package."""


@pytest.fixture(scope="module")
def shipped() -> Modules:
    modules = parse(
        {
            ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text(encoding="utf-8")
            for package in ("broker", "cli")
            for path in sorted((ROOT / package).rglob("*.py"))
        }
    )
    assert {"broker.topics", "broker.store.__init__", "cli.__init__"} <= modules.keys()
    return modules


def test_the_rules_hold(shipped: Modules) -> None:
    assert complaints(shipped) == []


@pytest.mark.parametrize(("name", "home"), DEFINED_IN.items())
def test_a_name_that_matters_is_spelled_where_the_rule_says(
    shipped: Modules, name: str, home: str
) -> None:
    assert f'= "{name}"' in shipped[home].source


def test_no_module_has_more_than_400_lines(shipped: Modules) -> None:
    assert long_modules(shipped) == {}


def test_classes_get_no_wider(shipped: Modules) -> None:
    assert worse_or_better(wide_classes(shipped), WIDE_CLASSES) == []


def test_a_module_has_a_test_at_its_path(shipped: Modules) -> None:
    tests = {str(path.relative_to(ROOT)) for path in (ROOT / "tests/unit").rglob("test_*.py")}
    assert worse_or_better(untested_modules(shipped, tests), UNTESTED_MODULES) == []


def test_private_names_of_other_packages_are_used_in_one_place_each(shipped: Modules) -> None:
    assert worse_or_better(users_of_private_names(shipped), USERS_OF_PRIVATE_NAMES) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("broker.topics", "from broker.errors import TopicNameInvalid"),
        ("broker.replay.placing", "from broker.mqtt import packets"),
        ("broker.server.server", "from broker.net.tcp import listen"),
        ("broker.mqtt.decode", "from broker.mqtt import fields\nfrom . import packets"),
        ("broker.mqtt.__init__", "from .decode import decode\nfrom ..errors import PeerError"),
        ("broker.security.tls", "import ssl"),
        ("broker.replay.spec", "from datetime import datetime\ndatetime.fromisoformat('2025')"),
        ("broker.__init__", "__version__ = '1'"),
        ("broker.web.admin", "from broker.net import unix"),
        ("cli.main", "from broker import __version__\nfrom broker.replay import spec"),
        ("cli.commands.broker_start", "from broker.server.server import run"),
        ("cli.log.history", "from broker.store.sqlite.reader import Reader"),
        ("cli.bench.measurement", "import time\ntime.monotonic()"),
        ("broker.store.sqlite.writer", "import time\ntime.time_ns()"),
        ("broker.store.shared.jetstream", "import nats.errors"),
        ("broker.log.log", "async def f(self):\n    await asyncio.sleep(0)"),
        ("broker.log.log", "self._clock.call_later(1, f)"),
        ("broker.log.log", "tasks.start(work(), self.failed)"),
        ("broker.topics", "SYS = '$SYS'"),
        ("broker.log.log", '"""Of $SYS and pubsub.db."""\nx = 1\n"""Of $SYS."""'),
    ],
)
def test_what_is_allowed(name: str, source: str) -> None:
    assert complaints(parse({name: source})) == []


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("broker.topics", "from broker.log.log import Log", "above it or to its left"),
        ("broker.topics", "import broker.net.tcp", "above it or to its left"),
        ("broker.topics", "from broker import session", "above it or to its left"),
        ("broker.__init__", "from broker.server.server import Server", "above it or to its left"),
        ("broker.errors", "from broker.config import Config", "above it or to its left"),
        ("broker.server.server", "from cli.main import main", "above it or to its left"),
        (
            "broker.delivery.delivery",
            "def f():\n    from broker.clients.client import C",
            "above it or to its left",
        ),
        (
            "broker.log.log",
            "if TYPE_CHECKING:\n    import broker.clients.client",
            "above it or to its left",
        ),
        ("broker.helpers", "", "not in the map"),
        ("broker.util.text", "", "not in the map"),
        ("broker.log.log", "from broker.helpers import x", "not in the map"),
        ("broker.log.log", "from broker import helpers", "not in the map"),
        ("broker.log.log", "from benchmarks import load", "not shipped"),
        ("cli.main", "import tests.support", "not shipped"),
        ("broker.web.admin", "from broker.session.session import Session", "must not handle"),
        ("broker.net.tcp", "from broker.mqtt import decode", "must not handle"),
        ("broker.mqtt.decode", "from ..session import Session", "must not know session"),
        ("broker.mqtt.__init__", "from .. import lines", "must not know lines"),
        ("broker.store.memory", "from broker.mqtt.packets import Publish", "must not know mqtt"),
        ("broker.log.log", "from broker.topics import matches", "must not know topics"),
        ("broker.replay.spec", "from broker.store import Read", "which is not pure"),
        ("broker.security.acl", "import ssl", "is pure"),
        ("broker.config", "from os import path", "is pure"),
        ("broker.config", "import os.path", "is pure"),
        ("cli.main", "from broker import server", "of cli, cli.commands.broker_start may"),
        (
            "cli.messages.publish",
            "from broker.store import Store",
            "of cli, cli.care.backup, cli.care.check",
        ),
        ("cli.log.history", "from broker.delivery.delivery import Delivery", "of cli, nothing may"),
        ("broker.log.log", "self._task = asyncio.create_task(work())", "tasks.start"),
        ("broker.store.shared.cluster", "from nats.js import api", "jetstream may"),
        ("broker.log.log", "asyncio.ensure_future(work())", "tasks.start"),
        ("broker.log.log", "x = '$SYS/log'", "spells $SYS"),
        ("broker.log.log", "x = f'{y}/$SYS'", "spells $SYS"),
    ],
)
def test_what_breaks_a_rule_is_reported(name: str, source: str, says: str) -> None:
    found = complaints(parse({name: source}))
    assert all(complaint.startswith(name) for complaint in found)
    assert any(says in complaint for complaint in found)


def test_what_must_not_be_known_is_not_known_through_others_either() -> None:
    sources = {
        "broker.log.log": "from broker.replay.placing import place",
        "broker.replay.placing": "from broker.mqtt.packets import Subscribe",
        "broker.mqtt.packets": "",
    }
    assert complaints(parse(sources)) == [
        "broker.log.log: must not know mqtt: "
        "broker.log.log -> broker.replay.placing -> broker.mqtt.packets"
    ]


def test_who_imports_a_module_knows_what_its_package_imports() -> None:
    sources = {
        "broker.registry.wills": "from broker.log.log import Log",
        "broker.log.log": "",
        "broker.log.__init__": "from broker.replay import placing",
        "broker.replay.placing": "import broker.lines.connection",
    }
    assert complaints(parse(sources))[0] == (
        "broker.registry.wills: must not know lines: broker.registry.wills -> broker.log.log -> "
        "broker.log.__init__ -> broker.replay.placing -> broker.lines.connection"
    )


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "from time import monotonic",
        "loop.time()",
        "self._loop.call_at(1, f)",
        "asyncio.get_running_loop().call_later(1, f)",
        "later = loop.call_later",
        "asyncio.sleep(1)",
        "asyncio.sleep(delay_s)",
        "f(asyncio.sleep)",
        "asyncio.timeout(1)",
        "asyncio.wait_for(f, 1)",
        "from asyncio import timeout",
        "datetime.now()",
        "datetime.datetime.now(UTC)",
        "date.today()",
    ],
)
def test_whoever_reads_a_clock_or_sets_a_timer_is_reported(source: str) -> None:
    (complaint,) = complaints(parse({"broker.log.log": source}))
    assert complaint.endswith("time is an argument")


@pytest.mark.parametrize("name", [*sorted(f"broker.{each}" for each in PURE_PLACES), REPLAY_SPEC])
@pytest.mark.parametrize("used", ["asyncio", "os", "random", "socket", "sqlite3", "ssl"])
def test_no_pure_module_does_io(name: str, used: str) -> None:
    assert complaints(parse({name: f"import {used}"})) == [f"{name}: imports {used} and is pure"]


def test_a_module_may_have_400_lines() -> None:
    modules = parse({"broker.short": "x\n" * 400, "broker.long": "x\n" * 401})
    assert long_modules(modules) == {"broker.long": "401 lines"}


@pytest.mark.parametrize(
    "body",
    [
        "\n".join(f"    a{number}: int" for number in range(21)),
        f"    __slots__ = {tuple(f'a{number}' for number in range(21))}",
        "    def f(self):\n" + "\n".join(f"        self.a{number} = 1" for number in range(21)),
        "    a: int\n    __slots__ = ('b',)\n    def f(self):\n        self.a = self.b = 1\n"
        + "\n".join(f"        self.a{number} += 1" for number in range(19)),
    ],
)
def test_a_class_may_have_20_attributes(body: str) -> None:
    assert wide_classes(parse({"broker.x": f"class X:\n{body}"})) == {"broker.x.X": "21 attributes"}
    smaller = body.replace("a20", "a19").replace("a18", "a17")
    assert wide_classes(parse({"broker.x": f"class X:\n{smaller}"})) == {}


def test_a_module_without_a_test_at_its_path_is_found() -> None:
    names = "broker.a", "broker.b.c", "cli.d.e", "broker.b.__init__"
    modules = parse(dict.fromkeys(names, "def f():\n    return 1"))
    assert untested_modules(modules, []) == {
        "broker.a": "has no tests/unit/test_a.py",
        "broker.b.c": "has no tests/unit/b/test_c.py",
        "cli.d.e": "has no tests/unit/cli/d/test_e.py",
    }
    found = {"tests/unit/test_a.py", "tests/unit/b/test_c.py", "tests/unit/cli/d/test_e.py"}
    assert untested_modules(modules, found) == {}


@pytest.mark.parametrize("body", ["...", "pass", '"""What it does."""\n        ...'])
def test_a_module_that_does_nothing_needs_no_test(body: str) -> None:
    source = (
        f"class P(Protocol):\n    def f(self):\n        {body}\n\n@dataclass\nclass D:\n    x: int"
    )
    assert untested_modules(parse({"broker.a": source}), []) == {}
    assert untested_modules(parse({"broker.a": f"{source}\n    async def g(self): f()"}), []) != {}


def test_a_private_name_that_is_nobodys_is_of_another_package() -> None:
    sources = {
        "broker.a": "class A:\n    _x: int\n    def _y(self):\n        self._z = 1",
        "broker.b": "a._x, a._y, a._z, a.__dict__",
        "broker.c": "client._in_packet",
    }
    assert users_of_private_names(parse(sources)) == {
        "broker.c": "uses client._in_packet of another package"
    }


def test_a_list_may_only_shrink() -> None:
    assert worse_or_better({"a": "401 lines"}, {"a"}) == []
    assert worse_or_better({"a": "401 lines"}, set()) == ["a: 401 lines"]
    assert worse_or_better({}, {"a"}) == ["a: got better: take it off the list"]
