from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.settings.dedup import DedupRule
from broker.settings.listeners import Listener, is_loopback


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "broker.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_the_command_line_says_goes_before_the_file_and_the_file_before_the_defaults(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, 'port = 7\ndata_dir = "d"\ndrain_timeout_s = 3\n')
    config = Config.load(path, {"port": 8, "host": None})
    assert (config.port, config.host, config.data_dir) == (8, "127.0.0.1", Path("d"))
    assert config.drain_timeout_s == 3.0
    assert isinstance(config.drain_timeout_s, float)


def test_what_is_a_path_or_a_list(tmp_path: Path) -> None:
    text = 'unix_socket = "mqtt.sock"\nwebsocket_origins = ["*", "https://example.org:8443"]\n'
    config = Config.load(written(tmp_path, text), {})
    assert config.unix_socket == Path("mqtt.sock")
    assert config.websocket_origins == ("*", "https://example.org:8443")
    assert Config.load(None, {"unix_socket": Path("here")}).unix_socket == Path("here")


def test_without_a_file_there_are_the_defaults() -> None:
    assert Config.load(None, {}) == Config()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("prot = 9000", "prot"),
        ('port = "9000"', "port"),
        ("port = true", "port"),
        ("port = 65536", "port"),
        ("port = 1.5", "port"),
        ('allow_anonymous = "yes"', "allow_anonymous"),
        ("data_dir = 3", "data_dir"),
        ("unix_socket = 3", "unix_socket"),
        ('websocket_origins = "https://example.org"', "websocket_origins"),
        ("websocket_origins = [1]", "websocket_origins"),
        ('websocket_origins = ["https://example.org/"]', "websocket_origins"),
        ('websocket_origins = ["example.org"]', "websocket_origins"),
        ("outbox_messages_max = -1", "outbox_messages_max"),
        ("receive_max = 0", "receive_max"),
        ("inflight_max = 65536", "inflight_max"),
        ("keep_alive_max_s = 65536", "keep_alive_max_s"),
        ('response_information = "a\\u0000"', "response_information"),
        (f'response_information = "{"é" * 32_768}"', "response_information"),
        ('durability = "sometimes"', "durability"),
        ('log_level = "all"', "log_level"),
        ("port = ", "config"),
    ],
)
def test_what_cannot_work_is_refused_by_its_name(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.load(written(tmp_path, text), {})
    assert refused.value.key == key
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 1.5", "port = 1.5: must be a whole number"),
        ("connect_timeout_s = '1'", "connect_timeout_s = '1': must be a number"),
        ("host = 1", "host = 1: must be a string"),
        ("allow_anonymous = 1", "allow_anonymous = 1: must be true or false"),
        ("data_dir = 3", "data_dir = 3: must be a path"),
        ("port = x", "config = '{path}': is not TOML: Invalid value (at line 1, column 8)"),
    ],
)
def test_a_refusal_says_what_would_be_right(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as refused:
        Config.load(path, {})
    assert str(refused.value) == said.format(path=path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Config.load(tmp_path / "none.toml", {})


def test_where_others_need_a_password_is_known() -> None:
    assert Config(host="0.0.0.0", allow_anonymous=True).open_host is None
    assert Config(host="192.0.2.1").open_host == "192.0.2.1"
    assert Config().open_host is None
    listeners = Listener(port=1), Listener(host="::", port=2, allow_anonymous=False)
    assert Config(listeners=listeners, allow_anonymous=True).open_host == "::"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("", False),
        ("localhost.example", False),
    ],
)
def test_only_addresses_of_this_machine_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


# Tables


def load(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "pubsub.toml"
    path.write_text(text)
    return Config.load(path, {})


def test_tables_are_read_in_their_order(tmp_path: Path) -> None:
    config = load(tmp_path, '[[dedup]]\nfilter = "a/#"\nwindow = "1d2h"\n[[dedup]]\nfilter = "b"\n')
    assert config.dedup == (DedupRule(filter="a/#", window="1d2h"), DedupRule(filter="b"))
    assert [rule.window_s for rule in config.dedup] == [93_600, 600]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('dedup = "a"', r"dedup = 'a': must be tables: \[\[dedup\]\]"),
        ('[[dedup]]\nwindow = "5s"', r"dedup.filter = '': is missing"),
        ("[[dedup]]\nfilter = 5", "dedup.filter = 5: must be a string"),
        ('[[dedup]]\nfilter = "a#"', "dedup.filter = 'a#': .*use a/b/#"),
        ('[[dedup]]\nfilter = "a"\nwindow = "soon"', "dedup.window = 'soon': must be like"),
        ('[[dedup]]\nfilter = "a"\nwindow = "0s"', "dedup.window = '0s': must be like"),
        ('[[dedup]]\nfilter = "a"\nwidow = "5s"', "dedup.widow = '5s': .*has filter, window"),
    ],
)
def test_a_table_that_is_wrong_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path, text)


def test_retention_is_read_from_its_tables(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.toml"
    path.write_text('[[retention]]\nfilter = "a/#"\nage = "7d"\n[[retention]]\nfilter = "#"\n')
    config = Config.load(path, {})
    assert [rule.filter for rule in config.retention] == ["a/#", "#"]
    path.write_text("[retention]\nage = 7\n")
    with pytest.raises(ConfigError, match=r"\[\[retention\]\], not \[retention\]"):
        Config.load(path, {})


def test_a_number_of_bytes_may_have_a_unit(tmp_path: Path) -> None:
    assert load(tmp_path, 'store_keep_bytes = "20GB"').store_keep_bytes == 20 * 10**9
    assert load(tmp_path, 'disk_free_min = "1GB"').disk_free_min == 10**9
    assert load(tmp_path, "disk_free_min = 0").disk_free_min == 0
    with pytest.raises(ConfigError, match="disk_free_min = 'much': must be a number of bytes"):
        load(tmp_path, 'disk_free_min = "much"')


# Listeners


def test_host_and_port_are_one_listener_and_tables_stand_in_their_place(tmp_path: Path) -> None:
    assert Config(port=5).every_listener == (Listener(host="127.0.0.1", port=5),)
    config = load(
        tmp_path,
        """unix_socket = "a"
        [[listeners]]
        port = 1
        protocols = ["mqtt"]
        connections_max = 7
        packet_bytes_max = 300
        [[listeners]]
        host = "0.0.0.0"
        port = 2
        allow_anonymous = true
        [[listeners]]
        unix_socket = "b"
        """,
    )
    socket, first, second, another = config.every_listener
    assert first == Listener(
        port=1,
        protocols=("mqtt",),
        connections_max=7,
        packet_bytes_max=300,
    )
    assert second == Listener(host="0.0.0.0", port=2, allow_anonymous=True)
    assert (socket, another) == (Listener(unix_socket=Path("a")), Listener(unix_socket=Path("b")))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("port = 1\n[[listeners]]\nport = 2", "^port = 1: belongs into a"),
        ('host = "::1"\n[[listeners]]\nport = 2', "^host = '::1': belongs into a"),
        ("[[listeners]]\nport = 65536", "^listeners.port = 65536: must be 0..65535"),
        ("[[listeners]]\nport = true", "^listeners.port = True: must be a whole number"),
        ("[[listeners]]\nport = 1\ntsl = true", "^listeners.tsl = True: is not known"),
        ("[[listeners]]\nport = 1\nconnections_max = 0", "^listeners.connections_max = 0: must"),
        ("[listeners]\nport = 1", "must be tables"),
    ],
)
def test_a_listener_that_is_wrong_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        load(tmp_path, text)
