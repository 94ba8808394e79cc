"""The options of `pubsub cert revoke`."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from cli.main import app


def test_a_user_or_a_file_is_revoked(tmp_path: Path) -> None:
    certs = str(tmp_path / "certs")
    run = CliRunner()
    for made in (["--client", "kitchen"], ["--client", "cellar"]):
        assert run.invoke(app, ["cert", "create", *made, "--dir", certs]).exit_code == 0
    done = run.invoke(app, ["cert", "revoke", "kitchen", "--dir", certs])
    assert done.exit_code == 0
    assert done.stdout == f'tls_crl = "{certs}/crl.pem"\n'
    file = f"{certs}/cellar.crt"
    assert run.invoke(app, ["cert", "revoke", file, "--dir", certs]).exit_code == 0
