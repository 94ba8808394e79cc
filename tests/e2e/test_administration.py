"""Administration by the network as an operator uses it: the commands, TLS, who may what."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker_process import BrokerProcess, free_port, listens, wait_until
from tests.support.command_line import COMMAND

NOT_AUTHORIZED, UNREACHABLE, USAGE = 77, 69, 2


class Operators:
    """A home with certificates, a password, and a broker that is administered by TLS."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "PUBSUB_PASSWORD_FILE": str(home / "password"),
            "PUBSUB_CAFILE": str(home / "certs/ca.crt"),
        }
        (home / "password").write_text("secret\n")
        (home / "password").chmod(0o600)
        self.broker: BrokerProcess | None = None

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.environment, "PYTHONPATH": os.getcwd(), **environment},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def ok(self, *words: str, **environment: str) -> str:
        done = self.run(*words, **environment)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def refused(self, code: int, *words: str, **environment: str) -> str:
        done = self.run(*words, **environment)
        assert (done.returncode, done.stdout) == (code, ""), (words, done.stdout, done.stderr)
        return done.stderr

    def as_(self, name: str) -> dict[str, str]:
        return {"PUBSUB_ADMIN_URL": f"https://{name}@localhost:{self.port}"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operators]:
    home = tmp_path_factory.mktemp("home")
    place = Operators(home)
    place.ok("cert", "create", "localhost")
    place.ok("cert", "create", "--client", "bob")
    broker = BrokerProcess(home, {"listeners": []})
    certs = home / "certs"
    (home / "broker.toml").write_text(
        f"""
        [[listeners]]
        port = {broker.port}
        [[listeners]]
        port = {place.port}
        protocols = ["admin"]
        tls_certificate = "{certs}/server.crt"
        tls_key = "{certs}/server.key"
        tls_client_ca = "{certs}/ca.crt"
        tls_client_certificates = "optional"
        """
    )
    data_dir = ("--data-dir", str(broker.data_dir), "--password-file", "password")
    place.ok("user", "add", "ann", "--admin", *data_dir)
    for name in ("bob", "carl"):
        place.ok("user", "add", name, *data_dir)
    place.ok("acl", "add", "bob", "allow", "admin", "jobs/#", "--data-dir", str(broker.data_dir))
    place.broker = broker
    with broker:
        wait_until(lambda: listens(place.port))
        yield place
        assert not broker.complaints()


def test_every_command_that_administers_reaches_a_broker_elsewhere(place: Operators) -> None:
    ann = place.as_("ann")
    assert json.loads(place.ok("broker", "status", "--json", **ann))["pid"]
    place.ok("broker", "reload", **ann)
    new_password = ("--admin-password-file", "password", "--password-file", "password")
    assert "added" in place.ok("user", "add", "eve", *new_password, "-L", ann["PUBSUB_ADMIN_URL"])
    place.ok("user", "passwd", "eve", *new_password, "-L", ann["PUBSUB_ADMIN_URL"])
    place.ok("user", "roles", "eve", "standard", "night", **ann)
    (place.home / "passwd").write_text("fred:$7$101$x$y\n")
    assert "could not be used" in place.run("user", "import", "passwd", **ann).stderr
    place.ok("quota", "set", "eve", "--sessions", "5", **ann)
    assert "eve" in place.ok("quota", "ls", **ann)
    place.ok("quota", "rm", "eve", **ann)
    place.ok("acl", "add", "eve", "deny", "pub", "a", **ann)
    assert "deny" in place.ok("acl", "ls", "eve", **ann)
    said = place.refused(NOT_AUTHORIZED, "acl", "check", "eve", "pub", "a", **ann)
    assert "not allowed: deny publish a (of the user eve)" in said
    place.ok("acl", "rm", "eve", "deny", "pub", "a", **ann)
    place.ok("user", "rm", "eve", **ann)
    assert "carl" in place.ok("user", "ls", **ann)
    place.ok("group", "create", "mailers", "--filter", "mail/#", **ann)
    assert "$share/mailers/mail/#" in place.ok("group", "ls", **ann)
    assert "mail/#" in place.ok("group", "show", "mailers", **ann)
    place.ok("group", "seek", "mailers", "--to", "latest", **ann)
    assert "$share/mailers/mail/#" in place.ok("subscribers", **ann)
    place.ok("subscribers", "show", "$share/mailers/mail/#", **ann)
    place.ok("subscribers", "seek", "$share/mailers/mail/#", "--to", "latest", "--dry-run", **ann)
    place.ok("subscribers", "fork", "$share/mailers/mail/#", "$share/again/mail/#", **ann)
    place.ok("subscribers", "rm", "$share/again/mail/#", **ann)
    assert place.ok("dead-letters", **ann) == ""
    assert "no dead letter" in place.refused(66, "dead-letters", "show", "mailers", "1", **ann)
    for what in ("redrive", "drop"):
        said = place.refused(66, "dead-letters", what, "mailers", "--all", **ann)
        assert "no dead letter" in said
    place.ok("log", "trim", "--before", "latest", "--yes", **ann)
    place.ok("group", "rm", "mailers", **ann)


def test_a_narrower_right_is_for_what_lies_under_its_filter(place: Operators) -> None:
    ann, bob = place.as_("ann"), place.as_("bob")
    place.ok("group", "create", "workers", "--filter", "jobs/#", **bob)
    place.ok("group", "create", "hidden", "--filter", "mail/#", **ann)
    assert place.ok("group", "ls", **bob).split("\t")[0] == "$share/workers/jobs/#"
    assert "hidden" not in place.ok("subscribers", **bob)
    missing = "refused it to bob: the right to admin "
    for words, topics in (
        (("subscribers", "rm", "$share/hidden/mail/#"), "mail/#"),
        (("subscribers", "rm", "nobody"), "#"),
        (("group", "create", "x", "--filter", "#"), "#"),
        (("log", "trim", "mail/#", "--before", "latest", "--yes"), "mail/#"),
        (("log", "trim", "--before", "latest", "--yes"), "#"),
        (("user", "ls"), "#"),
        (("acl", "add", "bob", "allow", "admin", "#"), "#"),
        (("quota", "ls"), "#"),
        (("broker", "status"), "#"),
        (("broker", "reload"), "#"),
        (("broker", "stop"), "#"),
    ):
        said = place.refused(NOT_AUTHORIZED, *words, **bob)
        assert f"{missing}{topics} is missing" in said, words
    place.ok("log", "trim", "jobs/#", "--before", "latest", "--yes", **bob)
    place.ok("group", "rm", "workers", **bob)
    place.ok("group", "rm", "hidden", **ann)
    assert "the right admin is missing" in place.refused(
        NOT_AUTHORIZED, "subscribers", **place.as_("carl")
    )


def test_who_says_not_who_he_is_or_is_nobody_gets_nothing(place: Operators, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n")
    wrong.chmod(0o600)
    said = place.refused(NOT_AUTHORIZED, "user", "ls", "-L", f"https://localhost:{place.port}")
    assert "say who administers" in said
    said = place.refused(
        NOT_AUTHORIZED, "user", "ls", "--password-file", str(wrong), **place.as_("ann")
    )
    assert "wrong user name or password" in said
    said = place.refused(UNREACHABLE, "user", "ls", PUBSUB_CAFILE="", **place.as_("ann"))
    assert "nobody that is trusted here vouches for its certificate" in said
    assert place.broker is not None
    url = f"http://ann@127.0.0.1:{place.broker.port}"
    said = place.refused(UNREACHABLE, "user", "ls", "-L", url, PUBSUB_CAFILE="")
    assert 'protocols = ["admin"]' in said
    url = f"http://ann@127.0.0.1:{place.port}"
    said = place.refused(UNREACHABLE, "user", "ls", "-L", url, PUBSUB_CAFILE="")
    assert "this port speaks TLS only" in said


def test_a_client_certificate_needs_no_password(place: Operators) -> None:
    url = ("-L", f"https://localhost:{place.port}")
    bob = ("--cert", "certs/bob.crt", "--key", "certs/bob.key")
    assert place.ok("group", "ls", *url, *bob) == ""
    assert "admin #" in place.refused(NOT_AUTHORIZED, "user", "ls", *url, *bob)


def test_a_context_says_where_for_every_command(place: Operators) -> None:
    assert place.broker is not None
    url = f"mqtt://ann@127.0.0.1:{place.broker.port}"
    admin = f"https://localhost:{place.port}"
    home = {"XDG_CONFIG_HOME": str(place.home / "config"), "PUBSUB_CAFILE": ""}
    words = ("context", "add", "home", "-L", url, "--admin", admin, "--select")
    place.ok(*words, "--password-file", "password", **home)
    # The certificate is not the system's: so it is looked at, and not trusted.
    assert "vouches" in place.refused(UNREACHABLE, "user", "ls", **home)
    assert "ann" in place.ok("user", "ls", **(home | {"PUBSUB_CAFILE": "certs/ca.crt"}))
    said = place.refused(UNREACHABLE, "broker", "status", "--data-dir", "elsewhere", **home)
    assert "no broker is running on elsewhere/" in said


def test_who_did_what_is_told(place: Operators) -> None:
    """Also of what was refused; passwords are not."""
    assert place.broker is not None
    place.ok("quota", "set", "carl", "--sessions", "7", **place.as_("ann"))
    place.refused(NOT_AUTHORIZED, "quota", "rm", "carl", **place.as_("bob"))
    told = place.broker.stderr.read_text()
    assert "quotas set kind=user name=carl sessions=7: done" in told
    assert "quotas rm kind=user name=carl: refused (403)" in told
    assert " ann (127.0.0.1:" in told
    assert " bob (127.0.0.1:" in told
    assert "secret" not in told


def test_a_stop_is_asked_for_last(place: Operators) -> None:
    said = place.run("broker", "stop", **place.as_("ann")).stderr
    assert said == f"the broker at localhost:{place.port} stops; it takes no more connections\n"
    wait_until(lambda: not listens(place.port))
    assert "no broker answers" in place.refused(UNREACHABLE, "broker", "status", **place.as_("ann"))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('host = "0.0.0.0"', "would go over the network as they are"),
        ('protocols = ["admin", "mqtt"]', "admin alone"),
        ("allow_anonymous = true", "says who it is"),
        ('unix_socket = "x"', "give a port"),
    ],
)
def test_a_listener_that_would_be_open_is_refused(tmp_path: Path, more: str, says: str) -> None:
    lines = {"protocols": 'protocols = ["admin"]', "port": "port = 0"}
    for key in lines:
        if more.startswith(key) or (more.startswith("unix") and key == "port"):
            lines[key] = ""
    (tmp_path / "c.toml").write_text("\n".join(["[[listeners]]", *lines.values(), more]))
    done = subprocess.run(
        [*COMMAND, "broker", "start", "--config", str(tmp_path / "c.toml")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert done.returncode == USAGE
    assert says in done.stderr
    assert not (tmp_path / "data").exists()
