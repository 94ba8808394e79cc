"""Rules of a real broker: commands change them, and clients feel it before their next message."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.command_line import fail, pubsub, running, succeed

NEEDS_MOSQUITTO = pytest.mark.skipif(
    shutil.which("mosquitto_sub") is None, reason="needs mosquitto_sub"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("acl")
    password = directory / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    return directory


@pytest.fixture(scope="module")
def broker(directory: Path) -> Iterator[BrokerProcess]:
    """With root, who may do everything, and anna, who may do nothing yet."""
    broker = BrokerProcess(directory)
    for name, role in (("root", "admin"), ("anna", "none")):
        succeed(
            *("user", "add", name, "--role", role, "--data-dir", broker.data_dir),
            *("--password-file", directory / "password"),
        )
    acl(broker, "add", "anna", "allow", "publish", "home/#")
    with broker:
        yield broker
        assert broker.stop() == 0


def acl(broker: BrokerProcess, *arguments: str | Path) -> list[str]:
    return succeed("acl", *arguments, "--data-dir", broker.data_dir)


def at(broker: BrokerProcess, directory: Path, user: str) -> list[str | Path]:
    return ["-p", str(broker.port), "-u", user, "--password-file", directory / "password"]


def test_a_rule_that_was_made_at_rest_counts(broker: BrokerProcess, directory: Path) -> None:
    where = at(broker, directory, "anna")
    succeed("pub", "home/door", "open", *where)
    assert "the right to publish is missing" in fail(77, "pub", "office/door", "open", *where)
    assert "subscribe" in fail(77, "sub", "home/#", *where)


def test_a_websocket_has_the_rights_of_its_user(broker: BrokerProcess, directory: Path) -> None:
    where = "-L", f"ws://anna@127.0.0.1:{broker.port}", "--password-file", directory / "password"
    succeed("pub", "home/door", "open", *where)
    assert "the right to publish is missing" in fail(77, "pub", "office/door", "open", *where)
    assert "subscribe" in fail(77, "sub", "office/#", *where)


def test_what_is_to_come_later_needs_the_right_then(broker: BrokerProcess, directory: Path) -> None:
    where = at(broker, directory, "anna")
    acl(broker, "add", "anna", "allow", "publish", "later")
    succeed("pub", "later", "x", "--delay", "6s", *where)
    acl(broker, "rm", "anna", "allow", "publish", "later")

    def dropped() -> object:
        (status,) = succeed("broker", "status", "--json", "--data-dir", broker.data_dir)
        return json.loads(status)["dropped"].get("delayed: no right to publish any more")

    wait_until(lambda: dropped() == 1, timeout_s=30)
    assert broker.query("SELECT count(*) FROM history WHERE topic = 'later'") == [(0,)]


def test_a_right_is_given_and_taken_away_while_a_client_is_there(
    broker: BrokerProcess, directory: Path, tmp_path: Path
) -> None:
    acl(broker, "add", "anna", "allow", "subscribe", "home/#")
    says = acl(broker, "check", "anna", "sub", "home/x")
    assert says == ["anna: subscribe home/x is allowed: allow subscribe home/# (of the user anna)"]
    where, root = at(broker, directory, "anna"), at(broker, directory, "root")
    with running(tmp_path, "sub", "home/#", *where, says="home/#") as sub:
        succeed("pub", "home/a", "1", *root)
        sub.wait_lines(1)
        acl(broker, "rm", "anna", "allow", "subscribe", "home/#")
        for _ in range(2):  # Also what comes after the first that is stopped.
            succeed("pub", "home/a", "2", *root)
        acl(broker, "add", "anna", "allow", "subscribe", "home/#")
        succeed("pub", "home/a", "3", *root)
        sub.wait_lines(2)
        assert [line.split()[-1] for line in sub.lines()] == ["1", "3"]
    acl(broker, "rm", "anna", "allow", "subscribe", "home/#")
    said = fail(77, "acl", "check", "anna", "sub", "home/x", "--data-dir", broker.data_dir)
    assert "no rule says so" in said


@NEEDS_MOSQUITTO
@pytest.mark.parametrize("version", ["311", "5"])
def test_mosquitto_gets_what_its_acl_file_says(
    broker: BrokerProcess, directory: Path, version: str
) -> None:
    file = directory / f"acl-{version}"
    file.write_text(f"user anna\ntopic read m{version}/#\npattern write from/%c/#\n")
    acl(broker, "import", file)
    user = ["-p", str(broker.port), "-V", version, "-u", "anna", "-P", "secret"]
    root = ["-p", str(broker.port), "-u", "root", "-P", "secret", "-q", "1", "-r"]
    for topic, payload in (("other", "no"), (f"m{version}/a", "yes")):
        command = ["mosquitto_pub", *root, "-t", topic, "-m", payload]
        subprocess.run(command, check=True, timeout=15)
    command = ["mosquitto_sub", *user, "-t", "other", "-t", f"m{version}/#", "-C", "1", "-W", "15"]
    done = subprocess.run(command, check=True, timeout=20, capture_output=True, text=True)
    assert done.stdout == "yes\n"
    for client_id, topic, stored in (("c1", "from/c1/x", True), ("c1", "from/c2/x", False)):
        command = ["mosquitto_pub", *user, "-i", client_id, "-t", topic, "-m", version, "-q", "1"]
        subprocess.run(command, check=False, timeout=15, capture_output=True)
        found = succeed("log", topic, "--json", "--data-dir", broker.data_dir)
        assert any(json.loads(line)["payload"] == version for line in found) == stored


def test_what_was_refused_is_counted(broker: BrokerProcess, directory: Path) -> None:
    pubsub("pub", "office/x", "1", *at(broker, directory, "anna"))
    status = succeed("broker", "status", "--json", "--data-dir", broker.data_dir)
    assert json.loads("".join(status))["dropped"]["no right to publish"] >= 1
