"""Contexts: a file for its owner alone, replaced as a whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cli.net.contexts import Context, Contexts, load, made_of, path, said, save, show
from cli.net.sources import Said
from cli.options import BrokerOptions
from cli.terminal.failure import CommandFailed, Exit

HOME = Context(url="mqtts://h:8883", username="ann", password='a"\\\n\x7fé😀', insecure=True)
WORK = Context(url="mqtt://w:9000", password_file="/p", cafile="/a", cert="/c", key="/k")


@pytest.fixture(autouse=True)
def _config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.mark.parametrize(
    "contexts", [Contexts(), Contexts({"home": HOME, "work-2_x": WORK}, "home")]
)
def test_what_is_saved_is_loaded_again(contexts: Contexts) -> None:
    save(contexts)
    assert load() == contexts


def test_without_a_file_there_are_none() -> None:
    assert load() == Contexts()
    assert said(None) == Said()


def test_the_file_and_its_directory_are_for_their_owner_alone() -> None:
    before = os.umask(0)
    try:
        save(Contexts({"home": HOME}))
        save(Contexts({"home": HOME}, "home"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path().stat().st_mode) == 0o600
    assert stat.S_IMODE(path().parent.stat().st_mode) == 0o700
    assert [one.name for one in path().parent.iterdir()] == ["contexts.toml"]


def test_a_file_that_others_may_read_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    save(Contexts({"home": HOME}, "home"))
    path().chmod(0o644)
    load()
    assert f"better: chmod 600 {path()}" in capfd.readouterr().err


def test_what_cannot_be_written_leaves_the_file_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    save(Contexts({"home": HOME}))

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(CommandFailed, match="No space left on device"):
        save(Contexts())
    assert load() == Contexts({"home": HOME})
    assert [one.name for one in path().parent.iterdir()] == ["contexts.toml"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('password = "secret', "it is no TOML"),
        ("[contexts]\nhome = 1", "context home has no url"),
        ('[contexts.home]\nurl = "mqtt://h"\npasword = "secret"', "unknown setting.*pasword"),
        ('[contexts.home]\nurl = "mqtt://h"\npassword = 17', "wrong value: password"),
        ('selected = "home"', "selected names no context"),
        ("contexts = 3", "contexts is no table"),
    ],
)
def test_a_damaged_file_is_told_without_what_stands_there(content: str, says: str) -> None:
    path().parent.mkdir(parents=True)
    path().write_text(content)
    with pytest.raises(CommandFailed, match=says) as failed:
        load()
    assert failed.value.code is Exit.USAGE
    assert "secret" not in str(failed.value)


def test_one_that_is_not_there_is_told_with_those_that_are() -> None:
    contexts = Contexts({"home": HOME, "work": WORK})
    for act in (contexts.without, contexts.selecting, contexts.__getitem__):
        with pytest.raises(CommandFailed, match=r"no context 'x' \(home, work\)") as failed:
            act("x")
        assert failed.value.code is Exit.NOTHING_THERE


def test_one_that_is_removed_is_no_longer_selected() -> None:
    contexts = Contexts().with_one("home", HOME, select=True).with_one("work", WORK, select=False)
    assert contexts.selected == "home"
    assert contexts.without("home") == Contexts({"work": WORK})
    assert contexts.without("work").selected == "home"
    assert contexts.selecting("work").selected == "work"


def test_it_is_made_of_the_options_of_any_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.net.sources.from_stdin", lambda: "secret")
    monkeypatch.chdir("/")
    made = made_of(
        "home",
        BrokerOptions(url="mqtts://ann@h", password_stdin=True, cafile=Path("ca.crt")),
    )
    assert made == Context(
        url="mqtts://h:8883", username="ann", password="secret", cafile="/ca.crt"
    )
    assert "secret" not in repr(made)
    save(Contexts({"home": made}, "home"))
    assert (
        said(None)
        == said("home")
        == Said(
            host="h",
            port=8883,
            tls=True,
            websocket="",
            username="ann",
            password="secret",
            cafile=Path("/ca.crt"),
        )
    )


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("a/b", BrokerOptions(url="mqtt://h"), "is no name of a context"),
        ("home", BrokerOptions(port=1), "needs where the broker is"),
        ("home", BrokerOptions(url="mqtt://h/topic"), "needs where the broker is"),
    ],
)
def test_what_cannot_be_one_is_a_usage_error(name: str, options: BrokerOptions, says: str) -> None:
    with pytest.raises(CommandFailed, match=says) as failed:
        made_of(name, options)
    assert failed.value.code is Exit.USAGE


def test_they_are_listed_without_their_passwords(capfd: pytest.CaptureFixture[str]) -> None:
    save(Contexts({"work": WORK, "home": HOME}, "home"))
    show(as_json=False)
    assert capfd.readouterr().out == ("home\tmqtts://h:8883\tann\t*\t\nwork\tmqtt://w:9000\t\t\t\n")
    show(as_json=True)
    assert capfd.readouterr().out.splitlines() == [
        '{"name":"home","url":"mqtts://h:8883","username":"ann","admin":null,"selected":true}',
        '{"name":"work","url":"mqtt://w:9000","username":"","admin":null,"selected":false}',
    ]
