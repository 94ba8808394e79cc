"""`pubsub broker start`: its options are settings, and what it says once clients can connect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.server.reloading import Source
from broker.server.server import Server
from cli.main import app

Start = Callable[..., Config]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Run the command with a server that is told to stop at once; what it was to do."""

    def start(*arguments: str | Path, address: tuple[str, int] = ("127.0.0.1", 9000)) -> Config:
        started: list[Config] = []

        def run(
            config: Config,
            announce: Callable[[Server], None],
            hang_up: Callable[[], bool],
            *,
            accept_loss: bool,
            source: Source,
        ) -> None:
            assert source.read() == config
            assert hang_up()
            assert accept_loss == ("--accept-loss" in arguments)
            started.append(config)
            announce(SimpleNamespace(address=address, config=config))  # type: ignore[arg-type]

        monkeypatch.setattr("broker.server.serving.run", run)
        app(["broker", "start", *map(str, arguments)], standalone_mode=False)
        return started[0]

    return start


def test_without_options_the_settings_are_the_defaults(start: Start) -> None:
    assert start() == Config()


def test_an_option_goes_before_the_file(start: Start, tmp_path: Path) -> None:
    (tmp_path / "pubsub.toml").write_text('port = 1\nhost = "::1"\n')
    config = start("--config", tmp_path / "pubsub.toml", "--port", "0", "--durability", "os")
    assert (config.port, config.host, config.durability) == (0, "::1", "os")


def test_the_data_directory_of_the_environment_and_the_short_port(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_DATA_DIR", "/tmp/elsewhere")
    assert start("-p", "0") == Config(port=0, data_dir=Path("/tmp/elsewhere"))
    assert start("--data-dir", "here").data_dir == Path("here")


def test_a_setting_that_cannot_work_is_refused(start: Start) -> None:
    with pytest.raises(ConfigError, match="durability"):
        start("--durability", "hope")
    assert start("--host", "0.0.0.0", "--allow-anonymous").allow_anonymous


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("prot = 1", "did you mean port"),
        ("xyzzy = 1", "docs/reference.md has all"),
    ],
)
def test_a_mistyped_setting_is_told_with_those_like_it(
    start: Start, tmp_path: Path, setting: str, said: str
) -> None:
    (tmp_path / "pubsub.toml").write_text(f"{setting}\n")
    with pytest.raises(ConfigError, match=f"is not a setting; {said}"):
        start("--config", tmp_path / "pubsub.toml")


def test_a_loss_is_accepted_for_this_start_only(start: Start, tmp_path: Path) -> None:
    """A setting would accept those of every later start too."""
    start("--accept-loss")
    (tmp_path / "pubsub.toml").write_text("accept_loss = true\n")
    with pytest.raises(ConfigError, match="is not a setting"):
        start("--config", tmp_path / "pubsub.toml")


@pytest.mark.parametrize(
    ("host", "listening"), [("127.0.0.1", "127.0.0.1:9001"), ("::1", "[::1]:9001")]
)
def test_where_it_listens_is_said_so_that_it_can_be_pasted(
    start: Start, capfd: pytest.CaptureFixture[str], host: str, listening: str
) -> None:
    start("--unix-socket", "/run/pubsub.sock", "--data-dir", "d", address=(host, 9001))
    assert told(capfd) == [
        f"listening on {listening} and /run/pubsub.sock, data in d/ (pubsub.db); Ctrl-C stops it",
        "stopped",
    ]


def told(capfd: pytest.CaptureFixture[str]) -> list[str]:
    """What was written to standard error, without the time, and without what SIGHUP is told."""
    lines = capfd.readouterr().err.splitlines()
    return [line.partition(" ")[2] for line in lines if "SIGHUP" not in line]


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ((), "info"),
        (("-v",), "debug"),
        (("--verbose",), "debug"),
        (("--log-level", "warning"), "warning"),
    ],
)
def test_how_much_is_told(
    start: Start, capfd: pytest.CaptureFixture[str], options: tuple[str, ...], level: str
) -> None:
    assert start(*options).log_level == level
    assert bool(told(capfd)) == (level != "warning")
