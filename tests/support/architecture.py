"""The rules of the architecture: pure functions from source text to complaints.

A place is a folder or module of broker, or all of cli; `ROWS` is the map of places. Every import
counts, also one inside a function or for types only: it says what a module knows. A `Rule` takes
all modules and yields sentences, each beginning with a module's name.
"""

from __future__ import annotations

import ast
import gc
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

ROWS = (
    ("cli", "server", "at_rest"),
    ("web", "bridge", "net"),
    ("clients", "observe", "registry", "delivery"),
    ("log", "replay", "clock"),
    ("store", "tasks", "mqtt", "lines", "session", "security"),
    (
        *("config", "settings", "handed_on", "documents", "topics", "counters"),
        *("message", "errors", "plural", "cache", "__init__"),
    ),
)
ORDER = [place for row in ROWS for place in row]
"""Down and to the right are both later in here."""

MUST_NOT_KNOW = {
    "observe": {"mqtt", "lines"},
    "registry": {"mqtt", "lines"},
    "delivery": {"mqtt", "lines"},
    "log": {"security", "mqtt", "lines", "session", "topics"},
    "store": {"security", "mqtt", "lines", "session"},
    "security": {"mqtt", "lines", "session"},
    "mqtt": {"lines", "session"},
    "lines": {"session"},
}
"""Further down or to the right, and still none of their business: not even through others."""
MUST_NOT_IMPORT = {
    "web": {"clients", "session"},
    "net": {*ROWS[2], *ROWS[3], *ROWS[4]} - {"clients", "clock", "security"},
}
"""They know it through others and leave it to them: web shows snapshots, net moves bytes."""

WORDS = ROWS[-1]
REPLAY_SPEC = "broker.replay.spec"
USED_BY_CLI = {
    "server": {"cli.commands.broker_start"},
    "at_rest": {
        f"cli.operate.{each}" for each in ("acl", "queues", "quotas", "subscribers", "users")
    },
    "security": {"cli.operate.acl", "cli.operate.quotas", "cli.operate.users", "cli.commands.user"},
    "store": {
        *(
            f"cli.care.{each}"
            for each in ("backup", "check", "compact", "copying", "restore", "salvage")
        ),
        *(f"cli.log.{each}" for each in ("database", "history", "log_trim", "topics")),
        *(f"cli.operate.{each}" for each in ("cluster", "nats_nodes", "queue_view")),
        "cli.commands.cluster",
    },
    "session": {"cli.care.check", "cli.care.salvage"},
    "net": {"cli.operate.admin"},
    "registry": {"cli.log.log_trim"},
}
"""What some modules of cli use beside `WORDS` and `REPLAY_SPEC`, which all of them may."""

PURE_PLACES = {*ROWS[-2], *WORDS} - {"store", "tasks"}
"""`REPLAY_SPEC` is pure too, as the only one in its place."""
NOT_FOR_PURE = {
    "aiosqlite", "asyncio", "os", "random", "socket", "sqlite3", "ssl", "time", "uvloop",
}  # fmt: skip
MAY_USE_SSL = "broker.security.tls"

USES_NATS = ("broker.store.shared.connecting", "broker.store.shared.jetstream")
"""Whoever needs no shared log needs no NATS."""

HAVE_CLOCKS = {"cli", "store", "clock", "broker.server.server", "broker.server.ending"}
"""Places and modules. `net` keeps its timers with the Clock that it is given, like all others."""
TIMERS = {"asyncio.timeout", "asyncio.timeout_at", "asyncio.wait_for", "asyncio.sleep"}

STARTS_TASKS = {"broker.tasks", "broker.server.serving"}
"""Everybody else uses `tasks.start`, so that somebody hears of what ended a task."""

DEFINED_IN = {
    "$share/": "broker.topics",
    "$replay/": "broker.topics",
    "$SYS": "broker.topics",
    "$dead": "broker.topics",
    "pubsub.db": "broker.config",
    "admin.sock": "broker.config",
    "broker.lock": "broker.config",
}
"""Names that clients or files know. No other module has the literal."""

LINES_MAX = 400
ATTRIBUTES_MAX = 20


@dataclass(frozen=True)
class Module:
    """`name` is dotted; that of a package ends in `__init__`."""

    name: str
    source: str

    @cached_property
    def _tree(self) -> ast.Module:
        gc.disable()  # It would look for cycles where there are none, three quarters of the time.
        try:
            return ast.parse(self.source)
        finally:
            gc.enable()

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self._tree))

    @cached_property
    def statements(self) -> list[ast.AST]:
        """Imports and classes are among them."""
        return list(_statements(self._tree))

    @cached_property
    def imports(self) -> list[str]:
        """The dotted name of all that it imports; of `from a import b`, `a.b`."""
        found = []
        for node in self.statements:
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                package = self.name.split(".")[: -node.level] if node.level else []
                source = ".".join([*package, *([node.module] if node.module else [])])
                found += [f"{source}.{alias.name}" for alias in node.names]
        return found

    @property
    def place(self) -> str | None:
        return place_of(self.name)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        for inner in getattr(node, field, ()):
            yield inner
            yield from _statements(inner)


Modules = Mapping[str, Module]
Rule = Callable[[Modules], Iterator[str]]


def parse(sources: Mapping[str, str]) -> Modules:
    """Name, as in `Module`, to text."""
    return {name: Module(name, source) for name, source in sources.items()}


def place_of(name: str) -> str | None:
    """Where in the map something of broker or cli belongs; None if nowhere."""
    root, _, rest = name.partition(".")
    place = root if root == "cli" else rest.partition(".")[0]
    if place in ("", "__version__"):  # `import broker`, `from broker import __version__`
        place = "__init__"
    return place if root in ("broker", "cli") and place in ORDER else None


def is_ours(name: str) -> bool:
    return name.partition(".")[0] in ("broker", "cli")


def is_of_replay_spec(name: str) -> bool:
    return f"{name}.".startswith(f"{REPLAY_SPEC}.")


def is_pure(name: str) -> bool:
    return place_of(name) in PURE_PLACES or is_of_replay_spec(name)


# The rules


def imports_go_down_or_to_the_right(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        here = module.place
        if here is None:
            yield f"{module.name}: is not in the map: add it to a row"
            continue
        for imported in module.imports:
            there = place_of(imported)
            if imported.partition(".")[0] in ("tests", "benchmarks"):
                yield f"{module.name}: imports {imported}, which is not shipped"
            elif is_ours(imported) and there is None:
                yield f"{module.name}: imports {imported}, which is not in the map"
            elif there is not None and ORDER.index(there) < ORDER.index(here):
                yield f"{module.name}: imports {imported}, which is above it or to its left"
            elif there in MUST_NOT_IMPORT.get(here, ()):
                yield f"{module.name}: imports {imported}, which {here} must not handle"


def nobody_knows_what_is_not_their_business(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        forbidden = MUST_NOT_KNOW.get(module.place or "", set())
        complained = set()
        for way in ways_from(module.name, modules):
            there = place_of(way[-1])
            if there in forbidden and there not in complained:
                complained.add(there)
                yield f"{module.name}: must not know {there}: {' -> '.join(way)}"


def ways_from(start: str, modules: Modules) -> Iterator[list[str]]:
    """A shortest chain of imports to each name that a module imports in the end."""
    seen = {start}
    ways = deque([[start]])
    while ways:
        way = ways.popleft()
        for name in known_by(way[-1], modules):
            if name not in seen:
                seen.add(name)
                ways.append([*way, name])
                yield ways[-1]


def known_by(name: str, modules: Modules) -> Iterator[str]:
    """What a module imports of ours, as names of modules where these are known; and, as Python
    runs them first, the packages that it is in."""
    if name not in modules:
        return
    package, _, _ = name.removesuffix(".__init__").rpartition(".")
    for imported in [*modules[name].imports, *([package] if package else [])]:
        if is_ours(imported):
            parent = imported.rpartition(".")[0]
            candidates = (imported, f"{imported}.__init__", parent, f"{parent}.__init__")
            yield next((each for each in candidates if each in modules), imported)


def the_pure_are_pure(modules: Modules) -> Iterator[str]:
    """Without I/O and clocks, and also without a module that is not pure."""
    for module in modules.values():
        if not is_pure(module.name):
            continue
        for imported in module.imports:
            root = imported.partition(".")[0]
            if root in NOT_FOR_PURE and (root, module.name) != ("ssl", MAY_USE_SSL):
                yield f"{module.name}: imports {imported} and is pure"
            elif place_of(imported) is not None and not is_pure(imported):
                yield f"{module.name}: imports {imported}, which is not pure, and is pure"


def cli_talks_to_a_running_broker(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        for imported in module.imports if module.place == "cli" else ():
            there = place_of(imported)
            if there in (None, "cli", *WORDS) or is_of_replay_spec(imported):
                continue
            if module.name not in (users := USED_BY_CLI.get(there, {"nothing"})):
                yield f"{module.name}: imports {imported}; of cli, {', '.join(sorted(users))} may"


def time_is_an_argument(modules: Modules) -> Iterator[str]:
    """Who is given a Clock may use it; `asyncio.sleep(0)` only gives the others a turn."""
    for module in modules.values():
        if {module.place, module.name} & HAVE_CLOCKS:
            continue
        for imported in module.imports:
            if imported.partition(".")[0] == "time" or imported in TIMERS:
                yield f"{module.name}: imports {imported}; time is an argument"
        turns: set[ast.AST] = set()
        for node in module.nodes:
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name("asyncio"), attr="sleep") as turn,
                    args=[ast.Constant(0)],
                ):
                    turns.add(turn)
                case ast.Attribute(lineno=line) if node not in turns and tells_time(node):
                    used = ast.unparse(node)
                    yield f"{module.name}: uses {used} in line {line}; time is an argument"


def tells_time(node: ast.Attribute) -> bool:
    match node:
        case ast.Attribute(value=ast.Name("asyncio"), attr=attr):
            return f"asyncio.{attr}" in TIMERS
        case ast.Attribute(value=loop, attr="time" | "call_later" | "call_at"):
            return ast.unparse(loop).endswith(("loop", "loop()"))
        case ast.Attribute(value=ast.Name(id=date) | ast.Attribute(attr=date), attr=attr):
            return date in ("date", "datetime") and attr in ("now", "today", "utcnow")
    return False


def tasks_do_not_end_unheard(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        if module.name in STARTS_TASKS:
            continue
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"):
                yield f"{module.name}: uses {ast.unparse(node)}; tasks.start tells how it ended"


def nats_is_known_in_one_place(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        for imported in module.imports:
            if imported.partition(".")[0] == "nats" and module.name not in USES_NATS:
                may = " and ".join(USES_NATS)
                yield f"{module.name}: imports {imported}; of broker and cli, {may} may"


def a_name_that_matters_is_spelled_once(modules: Modules) -> Iterator[str]:
    """Docstrings and comments do not count."""
    for module in modules.values():
        docstrings = {node.value for node in module.nodes if isinstance(node, ast.Expr)}
        for node in module.nodes:
            if isinstance(node, ast.Constant) and node not in docstrings:
                for name, home in DEFINED_IN.items():
                    if name in str(node.value) and module.name != home:
                        yield f"{module.name}: spells {name}, which is defined in {home}"


RULES: Sequence[Rule] = (
    imports_go_down_or_to_the_right,
    nobody_knows_what_is_not_their_business,
    the_pure_are_pure,
    cli_talks_to_a_running_broker,
    time_is_an_argument,
    tasks_do_not_end_unheard,
    nats_is_known_in_one_place,
    a_name_that_matters_is_spelled_once,
)


def complaints(modules: Modules) -> list[str]:
    """What breaks a rule."""
    return [complaint for rule in RULES for complaint in rule(modules)]


# What may only get better: who is over a bound, and why


def long_modules(modules: Modules) -> dict[str, str]:
    lengths = {name: module.source.count("\n") for name, module in modules.items()}
    return {name: f"{lines} lines" for name, lines in lengths.items() if lines > LINES_MAX}


def wide_classes(modules: Modules) -> dict[str, str]:
    widths = {
        f"{module.name}.{node.name}": len(attributes(node))
        for module in modules.values()
        for node in module.statements
        if isinstance(node, ast.ClassDef)
    }
    return {name: f"{width} attributes" for name, width in widths.items() if width > ATTRIBUTES_MAX}


def attributes(tree: ast.ClassDef) -> set[str]:
    """What its methods assign to `self`, and what its body annotates (fields) or lists as slots."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign) and "__slots__" in map(ast.unparse, node.targets):
            names |= set(ast.literal_eval(node.value))
    for inner in ast.walk(tree):
        match inner:
            case ast.Attribute(value=ast.Name("self"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


def untested_modules(modules: Modules, tests: Collection[str]) -> dict[str, str]:
    """Without a test at the same path; `tests` are paths like `tests/unit/mqtt/test_decode.py`.

    A module that only says what things look like (protocols, dataclasses, errors) needs none.
    """
    wanted = {
        name: unit_test(name)
        for name, module in modules.items()
        if not name.endswith("__init__") and any(map(does_something, module.nodes))
    }
    return {name: f"has no {test}" for name, test in wanted.items() if test not in tests}


def does_something(node: ast.AST) -> bool:
    """Whether it is a function with a body: more than a docstring, `...` or `pass`."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not all(
        isinstance(each, ast.Pass)
        or (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))
        for each in node.body
    )


def unit_test(name: str) -> str:
    folder, _, module = name.removeprefix("broker.").replace(".", "/").rpartition("/")
    return "/".join(filter(None, ("tests/unit", folder, f"test_{module}.py")))


def users_of_private_names(modules: Modules) -> dict[str, str]:
    """Who uses a private attribute that nothing of ours defines: it is of another package."""
    ours = {name for module in modules.values() for name in defined(module)}
    return {
        module.name: f"uses {ast.unparse(node)} of another package"
        for module in modules.values()
        for node in module.nodes
        if isinstance(node, ast.Attribute)
        and re.match("_[a-z]", node.attr)
        and node.attr not in ours
        and ast.unparse(node) != "os._exit"  # Documented, for all its name.
    }


def defined(module: Module) -> Iterator[str]:
    for node in module.nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def worse_or_better(found: Mapping[str, str], listed: Collection[str]) -> list[str]:
    """Complaints about who is over and not listed, and who is listed and no longer over."""
    return [
        *(f"{name}: {why}" for name, why in found.items() if name not in listed),
        *(
            f"{name}: got better: take it off the list"
            for name in sorted(listed)
            if name not in found
        ),
    ]
