"""`statements.toml` is complete, its tests exist, and the code cites no statement that does not."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conformance.table import STATES, named_tests, statements

ROOT = Path(__file__).parents[2]

CLIENTS_ONLY = {
    "MQTT-3.1.2-20", "MQTT-3.1.2-21", "MQTT-3.1.2-30", "MQTT-3.2.2-4", "MQTT-3.2.2-5",
    "MQTT-3.2.2-11", "MQTT-3.2.2-14", "MQTT-3.2.2-18", "MQTT-3.2.2-21", "MQTT-3.3.2-10",
    "MQTT-3.3.4-8", "MQTT-4.5.0-2", "MQTT-4.6.0-1", "MQTT-4.6.0-2", "MQTT-4.6.0-3",
    "MQTT-4.6.0-4", "MQTT-4.12.0-3", "MQTT-4.12.1-1", "MQTT-6.0.0-3",
    "MQTT3-2.3.1-2", "MQTT3-2.3.1-3", "MQTT3-3.1.2-23", "MQTT3-3.14.4-1", "MQTT3-3.14.4-2",
    "MQTT3-4.5.0-2", "MQTT3-6.0.0-3", "MQTT3-7.1.2-1",
}  # fmt: skip
"""Not in the table, since they bind no server; tests and test clients may cite them."""
NOT_IN_THE_STANDARD = {"MQTT-2.2.1-1"}
"""Its numbering leaves these out."""
COUNTS = {"MQTT": 251, "MQTT3": 141}
"""What the standards number, by their appendices B; clients' statements included."""

_CITATION = re.compile(r"\[(MQTT3?-\d[^\]]*)\]")
_CITED = re.compile(r"(?:(MQTT3?)-)?(?:(\d+\.\d+\.\d+)-)?(\d+)(?:\.\.(\d+))?")
_SECTION = re.compile(r"(?:MQTT3?-)?\d+\.\d+(?:\.\d+)?(?:-n)?")


@pytest.mark.parametrize("number", statements())
def test_a_statement_has_a_gist_and_a_test_or_a_reason(number: str) -> None:
    row = statements()[number]
    assert set(row) - {"gist"} in [{state} for state in STATES]
    assert all(row.values())
    for test in named_tests(row):
        assert (problem := problem_with(test)) is None, problem


def test_no_statement_is_left_out() -> None:
    known = statements().keys() | CLIENTS_ONLY
    assert not statements().keys() & CLIENTS_ONLY
    last: dict[str, int] = {}
    for number in known:
        section, _, n = number.rpartition("-")
        last[section] = max(last.get(section, 0), int(n))
    wanted = {f"{section}-{n}" for section in last for n in range(1, last[section] + 1)}
    assert wanted - known == NOT_IN_THE_STANDARD
    assert Counter(number.partition("-")[0] for number in known) == COUNTS


def test_statements_have_the_order_of_the_standard() -> None:
    numbers = list(statements())
    assert numbers == sorted(numbers, key=place)


def place(number: str) -> tuple[bool, list[int]]:
    return number.startswith("MQTT3"), [int(part) for part in re.findall(r"\d+", number)[-4:]]


# The tests that it names


def problem_with(test: str) -> str | None:
    """`tests/file.py::test`, or `::Class::test` inherited or not; in brackets, one parameter."""
    match = re.fullmatch(r"(tests/[\w/]+\.py)::((?:\w+::)?test_\w+)(?:\[(.+)\])?", test)
    if match is None:
        return f"{test} does not name a test"
    path, name, parameter = match.groups()
    if not (ROOT / path).exists():
        return f"there is no {path}"
    function = functions_of(path).get(name)
    if function is None:
        return f"{path} has no {name}"
    if parameter is not None and parameter not in literals(function):
        return f"{name} has no parameter {parameter}"
    return None


@cache
def functions_of(path: str) -> dict[str, ast.AST]:
    """Every function of a module by name, methods as `Class::method`."""
    module = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name: f"{node.module.replace('.', '/')}.py"
        for node in module.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tests.")
        for alias in node.names
    }
    found: dict[str, ast.AST] = {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                name = ast.unparse(base)
                inherited = functions_of(imported[name]) if name in imported else found
                prefix = f"{name}::"
                for method, function in list(inherited.items()):
                    if method.startswith(prefix):
                        found[f"{node.name}::{method.removeprefix(prefix)}"] = function
            for method_node in node.body:
                if isinstance(method_node, ast.FunctionDef | ast.AsyncFunctionDef):
                    found[f"{node.name}::{method_node.name}"] = method_node
    return found


def literals(function: ast.AST) -> set[str]:
    assert isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
    return {
        str(node.value)
        for decorator in function.decorator_list
        for node in ast.walk(decorator)
        if isinstance(node, ast.Constant)
    }


@pytest.mark.parametrize(
    "test",
    [
        "tests/wire/test_3_1_connect.py::test_connect_is_accepted",
        "tests/wire/test_4_operation.py::TestKeepAlive::test_0_is_none",
        "tests/e2e/test_paho.py::TestPaho5::test_wildcards",
        "tests/wire/test_3_1_connect.py::test_flags_that_contradict_the_payload[42]",
    ],
)
def test_a_test_that_exists_is_found(test: str) -> None:
    assert problem_with(test) is None


@pytest.mark.parametrize(
    ("test", "says"),
    [
        ("tests/wire/test_3_1_connect.py::test_connect_is_excepted", "has no"),
        ("tests/wire/test_3_9_connect.py::test_connect_is_accepted", "there is no"),
        ("tests/wire/test_4_operation.py::TestKeepAlive::test_wildcards", "has no"),
        ("tests/e2e/test_paho.py::TestPaho311::test_retain_handling", "has no"),
        ("tests/wire/test_3_1_connect.py::test_flags_that_contradict_the_payload[99]", "parameter"),
        ("tests/wire/wire.py::chunks", "does not name a test"),
    ],
)
def test_a_test_that_does_not_exist_is_told(test: str, says: str) -> None:
    problem = problem_with(test)
    assert problem is not None
    assert says in problem


# The statements that the code names


def test_what_is_cited_exists() -> None:
    known = statements().keys() | CLIENTS_ONLY
    sources = [path for part in ("broker", "cli", "tests") for path in (ROOT / part).rglob("*.py")]
    unknown = []
    for path in sources:
        text = "" if path == Path(__file__) else path.read_text(encoding="utf-8")
        for citation in _CITATION.findall(text):
            unknown += [
                f"{path.relative_to(ROOT)}: [{citation}]"
                for number in cited(citation)
                if number not in known
            ]
    assert unknown == []


def cited(citation: str) -> Iterator[str]:
    """The numbers in `MQTT-3.1.2-4, 5, 7..9, 3.1.4-1, MQTT3-3.1.2-4`.

    A section (`MQTT-4.3.3`, `MQTT-4.3.3-n`) cites none; what cannot be read stands for itself.
    """
    standard = section = ""
    for part in re.split(r"[\s#,]*,[\s#]*", citation):
        match = _CITED.fullmatch(part)
        if match is None:
            if not _SECTION.fullmatch(part):
                yield part
            continue
        standard, section = match[1] or standard, match[2] or section
        for n in range(int(match[3]), int(match[4] or match[3]) + 1):
            yield f"{standard}-{section}-{n}"


def test_citations_are_read() -> None:
    assert list(cited("MQTT-3.1.2-4, 5, 7..9, 3.1.4-1,\n    # MQTT3-3.1.2-4, MQTT-4.7")) == [
        *(f"MQTT-3.1.2-{n}" for n in (4, 5, 7, 8, 9)),
        "MQTT-3.1.4-1",
        "MQTT3-3.1.2-4",
    ]
    assert list(cited("MQTT-3.1.2-23 ff.")) == ["MQTT-3.1.2-23 ff."]
