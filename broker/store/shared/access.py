"""Access: how to get to the nodes of a shared log, and as whom."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Access:
    """`credentials`: a file with one line, `user:password`. With any of the others the connection
    is TLS: `ca` says whom to trust (None: whom the system trusts), `cert` and `key` who we are."""

    credentials: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def options(self) -> dict[str, Any]:
        """For the client of NATS. Raises ConfigError: a file is not what it should be."""
        options: dict[str, Any] = {}
        if self.credentials is not None:
            user, colon, password = _read(self.credentials).strip().partition(":")
            if not colon or not user or "\n" in password:
                raise ConfigError(
                    "store_credentials", str(self.credentials), "must have one line, user:password"
                )
            options |= {"user": user, "password": password}
        if self.key is not None and self.cert is None:
            raise ConfigError("store_key", str(self.key), "needs store_cert")
        if self.ca is not None or self.cert is not None:
            options["tls"] = self._context()
        return options

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise _unusable("store_ca", self.ca, error) from error
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key)
            except (OSError, ssl.SSLError) as error:
                raise _unusable("store_cert", self.cert, error) from error
        return context


ANYBODY = Access()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable("store_credentials", path, error) from error


def _unusable(key: str, path: Path | None, error: Exception) -> ConfigError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ConfigError(key, str(path), f"cannot be used: {why}")
