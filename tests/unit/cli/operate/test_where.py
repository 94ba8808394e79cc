"""Which broker is administered: options, environment, the selected context, the directory here."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.net.contexts import Context, Contexts, save
from cli.operate.remote import Remote
from cli.operate.where import find, of_admin_url
from cli.options import AccountOptions, AdminOptions
from cli.terminal.failure import CommandFailed, Exit


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("DATA_DIR", "ADMIN_URL", "URL", "USER", "PASSWORD_FILE", "CAFILE"):
        monkeypatch.delenv(f"PUBSUB_{name}", raising=False)


def found(**options: object) -> tuple[object, ...]:
    where = find(AdminOptions(**options))  # type: ignore[arg-type]
    if isinstance(where, Path):
        return (str(where),)
    address = where.address
    tls = None if address.tls is None else str(address.tls.cafile or "")
    return address.host, address.port, tls, address.username, address.password


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text("secret\n")
    file.chmod(0o600)
    return file


def test_a_directory_unless_something_else_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found() == ("data",)
    assert found(data_dir=Path("x")) == ("x",)
    monkeypatch.setenv("PUBSUB_DATA_DIR", "y")
    assert found() == ("y",)
    assert found(data_dir=Path("x")) == ("x",)
    assert found(url="https://h:1")[:2] == ("h", 1)


def test_a_url_says_where_and_as_whom(password: Path) -> None:
    assert found(url="https://ann@h:8884", password_file=password, cafile=Path("ca")) == (
        *("h", 8884, "ca", "ann", "secret"),
    )
    assert found(url="http://[::1]", username="ann") == ("::1", 80, None, "ann", None)
    where = find(AccountOptions(url="https://ann@h", admin_password_file=password))
    assert isinstance(where, Remote)
    assert (where.address.port, where.address.password) == (443, "secret")


def test_the_environment(monkeypatch: pytest.MonkeyPatch, password: Path) -> None:
    monkeypatch.setenv("PUBSUB_ADMIN_URL", "https://ann@h:8884")
    monkeypatch.setenv("PUBSUB_PASSWORD_FILE", str(password))
    assert found() == ("h", 8884, "", "ann", "secret")
    assert found(data_dir=Path("x")) == ("x",)
    assert found(url="https://other:1") == ("other", 1, "", None, None), "not told to another"
    monkeypatch.setenv("PUBSUB_DATA_DIR", "y")
    with pytest.raises(CommandFailed, match="both set"):
        found()


def test_what_is_beside_a_url_of_mqtt_is_for_that_host(
    monkeypatch: pytest.MonkeyPatch, password: Path
) -> None:
    monkeypatch.setenv("PUBSUB_URL", "mqtts://h")
    monkeypatch.setenv("PUBSUB_USER", "ann")
    monkeypatch.setenv("PUBSUB_PASSWORD_FILE", str(password))
    assert found() == ("data",)
    assert found(url="https://h:1") == ("h", 1, "", "ann", "secret")
    assert found(url="https://other:1") == ("other", 1, "", None, None)


def test_a_context_that_says_where(monkeypatch: pytest.MonkeyPatch, password: Path) -> None:
    home = Context(
        url="mqtts://h:8883",
        admin="https://h:8884",
        username="ann",
        password_file=str(password),
        cafile="/ca",
    )
    work = Context(url="mqtt://w:1")
    save(Contexts({"home": home, "work": work}, "home"))
    assert found() == ("h", 8884, "/ca", "ann", "secret")
    assert found(data_dir=Path("x")) == ("x",)
    save(Contexts({"home": home, "work": work}, "work"))
    assert found() == ("data",)
    assert found(context="home")[:2] == ("h", 8884)
    with pytest.raises(CommandFailed, match="does not say where"):
        found(context="work")
    with pytest.raises(CommandFailed, match="no context") as none:
        found(context="gone")
    assert none.value.code is Exit.NOTHING_THERE


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "https://h", "data_dir": Path("x")}, "use one of"),
        ({"context": "a", "data_dir": Path("x")}, "use one of"),
        ({"username": "ann"}, "-u is for a broker elsewhere"),
        ({"cafile": Path("x"), "data_dir": Path("x")}, "--cafile is for a broker elsewhere"),
        ({"url": "http://h", "cafile": Path("x")}, "use https"),
        ({"url": "https://ann@h", "username": "bob"}, "its own user"),
    ],
)
def test_what_contradicts_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(CommandFailed, match=says) as refused:
        found(**options)
    assert refused.value.code is Exit.USAGE


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:1",
        "mqtt://h",
        "https://",
        "https://h/x",
        "https://h:0",
        "https://h:99999",
        "https://h?a",
    ],
)
def test_a_url_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(CommandFailed, match=r"--url must be like https://HOST:PORT$"):
        of_admin_url(url, "--url")
