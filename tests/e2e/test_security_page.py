"""Every command of docs/security.md, and of README's way to open it to a network, works as it is
written: in their order, with a broker of our own in place of the one that is named."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.broker_process import ROOT, free_port, listens, wait_until
from tests.support.command_line import COMMAND

PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
HOSTS = ("broker.example", "home.lan", "10.0.0.5", "192.168.1.5")
ENDS = {"sub": ["-C", "1", "-W", "5"], "bench": ["-n", "20"]}
"""What lets a command end that would go on."""


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


class Place:
    """A home with files, and a broker once it is started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.tls_port, self.admin_port, self.port = free_port(), free_port(), free_port()
        self.broker: subprocess.Popen[bytes] | None = None
        (home / "passwd").write_text(
            "carl:$6$Y4N99inO+zC+KiER$dpkRbAT+G3/3pBdBDqoL9IU7fchj/xCcV/aai7+4zU6HMJgd0/gyaW3uC54bsEfTJEE8PUaiWYOkGdlmJtnSMg==\n"
        )
        (home / "acl").write_text("user anna\ntopic read home/#\n")
        for name in ("passwd", "acl", ".mqtt-password"):
            if name == ".mqtt-password":
                (home / name).write_text("secret\n")
            (home / name).chmod(0o600)

    def run(self, command: str) -> None:
        command, _, to_file = command.partition(" > ")
        for host in HOSTS:
            command = command.replace(host, "localhost")
        command = re.sub(r"(mqtts://[^ /]*localhost)", rf"\1:{self.tls_port}", command)
        command = command.replace("localhost:8884", f"localhost:{self.admin_port}")
        command = command.replace("localhost:1883", f"localhost:{self.port}")
        command = command.replace("-p 8883", f"-p {self.tls_port}")
        command = command.replace("/etc/mosquitto", str(self.home)).replace("~", str(self.home))
        for file in ("ca.crt", "ann.crt", "ann.key"):
            command = re.sub(rf" (certs/)?{re.escape(file)}", f" certs/{file}", command)
        program, *words = shlex.split(command)
        assert program == "pubsub"
        if words[:2] == ["broker", "start"]:
            self._start(words)
            return
        name = " ".join(words[:2])
        if name == "user add" and "--password-file" not in words:
            words.append("--password-stdin")
        words += ENDS.get(words[0], [])
        if "--context" in words:
            words += ["--cafile", str(self.home / "certs/ca.crt")]
        done = subprocess.run(
            [*COMMAND, *words],
            input=b"secret\n",
            capture_output=True,
            timeout=60,
            env=self.environment,
            cwd=self.home,
            check=False,
        )
        assert done.returncode == 0, (command, done.stderr.decode())
        if to_file:
            secure = done.stdout.replace(b"port = 8883", b"port = %d" % self.tls_port)
            admin = done.stdout.replace(b"port = 8883", b"port = %d" % self.admin_port)
            (self.home / to_file).write_bytes(
                secure
                + b"[[listeners]]\nport = %d\n" % self.port
                + admin
                + b'protocols = ["admin"]\n'
            )

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.home)
        return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": home}

    def _start(self, words: list[str]) -> None:
        with (self.home / "diagnostics").open("wb") as diagnostics:
            self.broker = subprocess.Popen(
                [*COMMAND, *words], stderr=diagnostics, env=self.environment, cwd=self.home
            )
        wait_until(lambda: listens(self.tls_port) and listens(self.port), timeout_s=20)

    def stop(self) -> None:
        if self.broker is not None:
            self.broker.terminate()
            self.broker.wait(20)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.stop()


def test_readme_opens_it_to_a_network(place: Place) -> None:
    section = README.partition("## Open it to your network")[2].partition("\n## ")[0]
    *prepare, use = commands(section)
    assert len(prepare) == 3
    assert use.startswith("pubsub sub")
    for command in prepare:
        place.run(command)
    place.run(
        "pubsub pub -L mqtts://ann@home.lan/weather x -r --cafile certs/ca.crt --password-stdin"
    )
    place.run(use)


def test_every_command_of_the_page_works(place: Place) -> None:
    """Those that talk to a broker by MQTT are ann's, who may do everything."""
    found = commands(PAGE)
    assert len(found) > 20
    for command in found:
        if command.startswith("pubsub sub "):
            place.run(
                "pubsub pub -L mqtts://ann@broker.example/weather x -r --cafile ca.crt"
                " --password-stdin"
            )
            command += " -u ann --password-file ~/.mqtt-password"
        place.run(command)
    assert place.broker is not None
    assert place.broker.poll() is None
