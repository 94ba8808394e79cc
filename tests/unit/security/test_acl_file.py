"""Acl files of Mosquitto, as they are found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.security.acl_file import entries
from broker.security.rules import Right, Rules

FILE = b"""
# Of clients without a name
topic read public/#

user anna
topic home/#
topic write  office/my desk/x
topic deny home/safe
  topic read $SYS/#

user ben
topic readwrite a/+/b

pattern read devices/%u/status
pattern write devices/%c/#
"""


def told(content: bytes) -> list[str]:
    return [f"{rule.holder}: {rule}" for entry in entries(content) for rule in entry.rules]


def test_each_line_is_the_rules_that_it_means() -> None:
    assert told(FILE) == [
        "user anonymous: allow subscribe public/#",
        "user anna: allow publish home/#",
        "user anna: allow subscribe home/#",
        "user anna: allow publish office/my desk/x",
        "user anna: deny publish home/safe",
        "user anna: deny subscribe home/safe",
        "user anna: allow subscribe $SYS/#",
        "user ben: allow publish a/+/b",
        "user ben: allow subscribe a/+/b",
        "role everyone: allow subscribe devices/%u/status",
        "role everyone: allow publish devices/%c/#",
    ]


def test_what_cannot_be_a_rule_is_told_with_its_line() -> None:
    content = (
        b"user a:b\ntopic x\nuser anna\ntopic a/%u\ntopic a#\nacl x\n\xff\ntopic fine\ntopic\n"
    )
    found = [(entry.line, entry.why_not) for entry in entries(content) if entry.why_not]
    assert [line for line, _ in found] == [1, 2, 4, 5, 6, 7, 9]
    assert found[2][1] == "here %u and %c stand for names, in Mosquitto not"
    assert told(content) == [
        "user anna: allow publish fine",
        "user anna: allow subscribe fine",
    ]


LINES = st.lists(
    st.tuples(
        st.sampled_from(["user ", "topic ", "pattern ", "topic read ", "topic deny ", "", "#"]),
        st.text(alphabet="ab/+#%uc$ \t\0\r", max_size=12),
    ).map("".join)
)


@given(st.one_of(st.binary(max_size=200), LINES.map(lambda lines: "\n".join(lines).encode())))
def test_any_file_is_read_and_what_it_makes_can_be_asked(content: bytes) -> None:
    found = [*entries(content)]
    rules = Rules([rule for entry in found for rule in entry.rules], "anna", "c1")
    rules.verdict(Right.PUBLISH, "a/b")
    assert all(bool(entry.rules) != bool(entry.why_not) for entry in found)
