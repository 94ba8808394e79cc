"""A quota of retained topics at a real broker, with mosquitto_pub."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker_process import BrokerProcess
from tests.support.command_line import succeed

pytestmark = pytest.mark.skipif(shutil.which("mosquitto_pub") is None, reason="needs mosquitto_pub")
RETAINED = "SELECT name FROM retained_names ORDER BY name"
ROOT = "root"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """With a user root, and ann, who may have two retained topics."""
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    broker = BrokerProcess(tmp_path)
    for name, role in ((ROOT, "admin"), ("ann", "standard")):
        succeed(
            *("user", "add", name, "--role", role, "--data-dir", broker.data_dir),
            *("--password-file", password),
        )
    succeed("quota", "set", "ann", "--retained", "2", "--data-dir", broker.data_dir)
    with broker:
        yield broker
        assert broker.stop() == 0


def publish(broker: BrokerProcess, user: str, topic: str, version: str, *options: str) -> str:
    """What it says on standard error."""
    command = ["mosquitto_pub", "-p", str(broker.port), "-V", version, "-u", user, "-P", "secret"]
    done = subprocess.run(
        [*command, "-i", user, "-t", topic, "-r", *(options or ("-m", "x"))],
        check=False,
        timeout=20,
        capture_output=True,
        text=True,
    )
    return done.stderr


def retained(broker: BrokerProcess) -> list[str]:
    """The topics, once all that was published is in the log."""
    publish(broker, ROOT, "last", "5", "-n", "-q", "2")
    return [name for (name,) in broker.query(RETAINED)]


@pytest.mark.parametrize("version", ["311", "5"])
def test_a_user_has_two_retained_topics_and_no_more(broker: BrokerProcess, version: str) -> None:
    for topic in ("a", "b", "a"):
        assert publish(broker, "ann", topic, version, "-m", "x", "-q", "1") == ""
    refused = publish(broker, "ann", "c", version, "-m", "x", "-q", "1")
    assert ("Quota exceeded" in refused) == (version == "5"), refused
    publish(broker, "ann", "c", version)
    assert retained(broker) == ["a", "b"]
    publish(broker, "ann", "a", version, "-n")
    publish(broker, "ann", "c", version)
    assert retained(broker) == ["b", "c"]
    broker.kill()
    broker.start()
    publish(broker, "ann", "d", version)
    assert retained(broker) == ["b", "c"]
    broker.kill()
    broker.start()
    publish(broker, ROOT, "b", version, "-m", "root's now", "-q", "1")
    # Acknowledged: the next one takes the connection over, with whatever it has not done.
    assert publish(broker, "ann", "d", version, "-m", "x", "-q", "1") == ""
    publish(broker, "ann", "e", version)
    assert retained(broker) == ["b", "c", "d"]
