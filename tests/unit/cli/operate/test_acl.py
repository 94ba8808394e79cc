"""`pubsub acl` where no broker runs. (Beside one: e2e/test_acl.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.documents import RuleDocument
from cli.operate import acl, users
from cli.terminal.failure import CommandFailed, Exit

OUTPUT = pytest.CaptureFixture[str]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    for name, role in (("anna", "standard"), ("root", "admin")):
        users.add(
            tmp_path / "data",
            name,
            roles=[role],
            scram=False,
            password_file=password,
            password_stdin=False,
            json=False,
        )
    return tmp_path / "data"


def test_rules_are_made_asked_for_and_removed(data_dir: Path, capsys: OUTPUT) -> None:
    capsys.readouterr()
    rule = acl.rule("anna", "deny", "pub", "a/#", role=False)
    assert rule == RuleDocument("anna", False, False, "publish", "a/#")
    acl.add(data_dir, rule)
    assert capsys.readouterr().out == "from now on: deny publish a/# (of the user anna)\n"
    acl.add(data_dir, rule)
    assert capsys.readouterr().out.startswith("there already")
    acl.ls(data_dir, "anna", role=False, json=True)
    assert json.loads(capsys.readouterr().out) == {
        "name": "anna",
        "is_role": False,
        "allow": False,
        "access": "publish",
        "filter": "a/#",
        "built_in": False,
    }
    with pytest.raises(CommandFailed) as refused:
        acl.check(data_dir, "anna", "pub", "a/1", client_id="", json=False)
    assert refused.value.code == Exit.NOT_AUTHORIZED
    assert "deny publish a/# (of the user anna)" in str(refused.value)
    acl.check(data_dir, "anna", "pub", "b", client_id="", json=False)
    said = capsys.readouterr().out
    assert said == "anna: publish b is allowed: allow publish # (of the role standard)\n"
    acl.rm(data_dir, rule)
    acl.check(data_dir, "anna", "pub", "a/1", client_id="", json=True)
    out = capsys.readouterr().out.splitlines()
    assert json.loads(out[-1])["allowed"] is True
    with pytest.raises(CommandFailed) as gone:
        acl.rm(data_dir, rule)
    assert gone.value.code == Exit.NOTHING_THERE


def test_a_rule_of_nobody_is_told(data_dir: Path, capsys: OUTPUT) -> None:
    capsys.readouterr()
    acl.add(data_dir, acl.rule("anan", "allow", "pub", "a", role=False))
    assert "there is no user anan yet" in capsys.readouterr().err
    acl.add(data_dir, acl.rule("nigth", "allow", "pub", "a", role=True))
    assert "no user here has the role nigth yet" in capsys.readouterr().err
    acl.add(data_dir, acl.rule("anna", "allow", "pub", "a", role=False))
    assert capsys.readouterr().err == ""


def test_a_check_names_the_other_right_that_it_takes(data_dir: Path, capsys: OUTPUT) -> None:
    acl.add(data_dir, acl.rule("anna", "allow", "read", "#", role=False))
    acl.check(data_dir, "anna", "read", "a", client_id="", json=False)
    acl.add(data_dir, acl.rule("anna", "deny", "sub", "a", role=False))
    with pytest.raises(CommandFailed, match="it takes subscribe, too: deny subscribe a"):
        acl.check(data_dir, "anna", "read", "a", client_id="", json=False)


def test_administration_is_a_right_of_all_of_a_filter(data_dir: Path, capsys: OUTPUT) -> None:
    acl.add(data_dir, acl.rule("anna", "allow", "admin", "home/#", role=False))
    acl.check(data_dir, "anna", "admin", "home/+/door", client_id="", json=False)
    assert "is allowed: allow admin home/# (of the user anna)" in capsys.readouterr().out
    with pytest.raises(CommandFailed, match="not allowed: no rule says so") as refused:
        acl.check(data_dir, "anna", "admin", "#", client_id="", json=False)
    assert refused.value.code == Exit.NOT_AUTHORIZED
    acl.check(data_dir, "root", "admin", "#", client_id="", json=False)


def test_all_that_deny_something_together_are_named(data_dir: Path) -> None:
    for denied in ("a", "a/+/#"):
        acl.add(data_dir, acl.rule("root", "deny", "sub", denied, role=False))
    with pytest.raises(CommandFailed, match=r"deny subscribe a \(.*, deny subscribe a/\+/# \("):
        acl.check(data_dir, "root", "sub", "a/#", client_id="", json=False)


@pytest.mark.parametrize(
    ("effect", "right", "says"), [("permit", "pub", "permit"), ("allow", "swim", "swim")]
)
def test_what_is_no_rule_is_said(effect: str, right: str, says: str) -> None:
    with pytest.raises(CommandFailed, match=says) as refused:
        acl.rule("anna", effect, right, "a", role=False)
    assert refused.value.code == Exit.USAGE


def test_the_list_names_roles_and_what_is_built_in(
    data_dir: Path, capsys: OUTPUT, monkeypatch: pytest.MonkeyPatch
) -> None:
    capsys.readouterr()
    acl.ls(data_dir, "standard", role=True, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "standard\trole\tallow\tpublish\t#\tbuilt in" in lines
    acl.add(data_dir, acl.rule("zoe", "allow", "pub", "z", role=False))
    capsys.readouterr()
    acl.ls(data_dir, None, role=False, json=False)
    marks = [line.endswith("built in") for line in capsys.readouterr().out.splitlines()]
    assert True in marks
    assert marks == sorted(marks), "what somebody made comes first"
    acl.ls(data_dir, "nobody", role=False, json=False)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    acl.ls(data_dir, "nobody", role=False, json=False)
    assert capsys.readouterr() == ("", "no rules of user nobody; all rules: pubsub acl ls\n")


def test_an_acl_file_is_all_that_is_allowed(data_dir: Path, tmp_path: Path, capsys: OUTPUT) -> None:
    file = tmp_path / "acl"
    file.write_text("user anna\ntopic home/#\ntopic a#\npattern read d/%c\n")
    capsys.readouterr()
    with pytest.raises(CommandFailed, match="1 line could not be used"):
        acl.take(data_dir, file)
    told = capsys.readouterr()
    assert told.out == "3 rules are in force\n"
    assert f"{file}:3: " in told.err
    assert "anna does not have the role standard any more" in told.err
    acl.check(data_dir, "anna", "sub", "d/c1", client_id="c1", json=False)
    with pytest.raises(CommandFailed):
        acl.check(data_dir, "anna", "sub", "office", client_id="", json=False)
    acl.check(data_dir, "root", "sub", "office", client_id="", json=False)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="no log"):
        acl.ls(tmp_path / "none", None, role=False, json=False)
    with pytest.raises(CommandFailed, match="No such file"):
        acl.take(tmp_path, tmp_path / "none")
