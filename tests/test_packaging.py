"""The wheel: holds what it needs, nothing of the tests, and runs where only it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from broker import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(built)]
    subprocess.run([*command, str(ROOT)], check=True, timeout=120)
    return next(built.glob("pubsub_broker-*.whl"))


def test_wheel_holds_the_three_packages_and_the_migrations(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"broker", "cli", "migrations", f"pubsub_broker-{__version__}.dist-info"}
    shipped = {name for name in names if name.endswith(".sql")}
    assert shipped == {f"migrations/{path.name}" for path in (ROOT / "migrations").glob("*.sql")}


def test_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """Beside the dependencies of the tests, but with nothing of the work tree on its path."""
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*command, str(site), str(wheel)], check=True, timeout=120)
    script = "import broker, cli.main, sys; print(broker.__file__); sys.exit(cli.main.main())"
    result = subprocess.run(
        [sys.executable, "-c", script, "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    place, version = result.stdout.splitlines()
    assert place.startswith(str(site))
    assert __version__ in version
