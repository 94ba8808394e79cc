"""Tokens: a JSON Web Token in place of a password (RFC 7519), signed with a key that we were given.

The keys are a JWK Set in a file: RSA for RS256, P-256 for ES256, `oct` for HS256. Each key signs by
its own algorithm alone, whatever a token says, and is as long as RFC 7518 asks. A token has to say
when it runs out.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker.errors import CommandRefused, ConfigError
from broker.security.names import Login, validate_role, validate_user
from broker.settings.files import MIB, read_file

if TYPE_CHECKING:
    from jwt import PyJWK

ALGORITHMS = ("HS256", "RS256", "ES256")
KEYS_MAX = 100
KEYS_BYTES_MAX = MIB
TOKEN_BYTES_MAX = 16_384
ROLES_MAX = 100
SECRET_BYTES_MIN = 32
"""Of HS256; a shorter one can be guessed from a single token."""
RSA_BITS_MIN = 2048
OTHERS_READ_OR_WRITE, OTHERS_WRITE = 0o026, 0o022
"""Permissions of a file; its group may read."""
LEEWAY_S = 30.0
"""How far the clock of who signs may be off."""


logger = logging.getLogger(__name__)


class TokenRefused(Exception):
    """Why, for the operator."""


@dataclass(slots=True, frozen=True)
class Claims:
    """What a token has to say, and where it says who it is. Empty: any issuer, any audience."""

    issuer: str = ""
    audience: str = ""
    user: str = "sub"
    roles: str = "roles"


class Tokens:
    """`path` is the file of the keys."""

    def __init__(self, path: Path, claims: Claims) -> None:
        """Raises ConfigError."""
        self._claims = claims
        self._keys = _read(path)
        _tell_if_exposed(path, self._keys)

    def login(self, token: bytes, now_s: float) -> Login:
        """Who brings it, at this Unix time. Raises TokenRefused."""
        import jwt

        if len(token) > TOKEN_BYTES_MAX:
            raise TokenRefused("the token is too long")
        try:
            key = self._key_of(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._claims.issuer or None,
                audience=self._claims.audience or None,
                options={
                    "require": ["exp"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                    "verify_aud": bool(self._claims.audience),
                    "verify_sub": False,
                },
            )
        except (jwt.InvalidTokenError, jwt.InvalidKeyError, RecursionError) as error:
            raise TokenRefused(f"the token is not valid: {error}") from error
        return self._login(claims, now_s)

    def _key_of(self, header: Mapping[str, Any]) -> PyJWK:
        """Named by the token, or the only one of its algorithm."""
        fitting = [key for key in self._keys if key.algorithm_name == header.get("alg")]
        if (kid := header.get("kid")) is not None:
            fitting = [key for key in fitting if key.key_id == kid]
        if len(fitting) != 1:
            raise TokenRefused("no key, or more than one, is meant by the token")
        return fitting[0]

    def _login(self, claims: Mapping[str, Any], now_s: float) -> Login:
        user, roles = claims.get(self._claims.user), claims.get(self._claims.roles)
        if isinstance(roles, str):
            roles = roles.split()
        if not isinstance(user, str):
            raise TokenRefused(f"the token has no text as {self._claims.user}")
        if roles is not None and not (
            isinstance(roles, list)
            and len(roles) <= ROLES_MAX
            and all(isinstance(role, str) for role in roles)
        ):
            raise TokenRefused(f"the token's {self._claims.roles} are no list of texts")
        try:
            validate_user(user)
            for role in roles or ():
                validate_role(role)
        except CommandRefused as error:
            raise TokenRefused(f"of what the token names, {error.reason}") from error
        expires_at_s, begins_at_s = _time(claims, "exp"), _time(claims, "nbf")
        if expires_at_s is None or now_s >= expires_at_s:
            raise TokenRefused("the token has run out")
        if begins_at_s is not None and now_s < begins_at_s - LEEWAY_S:
            raise TokenRefused("the token is not valid yet")
        return Login(user, None if roles is None else tuple(roles), expires_at_s=expires_at_s)


def is_token(password: bytes) -> bool:
    """Whether it looks like one: three parts, of which the first is a JSON object in base64."""
    return password.startswith(b"eyJ") and password.count(b".") == 2


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TokenRefused(f"the token's {name} is no number")
    try:
        moment = None if value is None else float(value)
    except OverflowError:
        moment = math.inf
    if moment is not None and not math.isfinite(moment):
        raise TokenRefused(f"the token's {name} is no moment")
    return moment


def _read(path: Path) -> list[PyJWK]:
    """Raises ConfigError."""
    import jwt

    try:
        listed = json.loads(read_file("jwt_keys", path, KEYS_BYTES_MAX))["keys"]
        keys = [jwt.PyJWK.from_dict(key) for key in listed if key.get("use") != "enc"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError("jwt_keys", str(path), f"is no JWK Set: {error}") from error
    except jwt.PyJWTError as error:
        raise ConfigError("jwt_keys", str(path), f"is no JWK Set: {error}") from error
    if not 1 <= len(keys) <= KEYS_MAX:
        raise ConfigError("jwt_keys", str(path), f"must have 1..{KEYS_MAX} keys")
    for key in keys:
        if why := _unfit(key):
            raise ConfigError("jwt_keys", str(path), why)
    return keys


def _tell_if_exposed(path: Path, keys: Sequence[PyJWK]) -> None:
    """Whoever may read a key for HS256, or put in another key, is whoever he likes."""
    secret = any(key.algorithm_name == "HS256" for key in keys)
    if path.stat().st_mode & (OTHERS_READ_OR_WRITE if secret else OTHERS_WRITE):
        what = "read or change" if secret else "change"
        logger.warning("others may %s the keys of tokens %s: chmod 600 it", what, path)


def _unfit(key: PyJWK) -> str:
    """Why nothing it signs can be trusted; "": it can."""
    algorithm = key.algorithm_name
    if algorithm not in ALGORITHMS:
        return f"has a key for {algorithm}: use one of {', '.join(ALGORITHMS)}"
    if algorithm == "HS256" and len(key.key) < SECRET_BYTES_MIN:
        return f"has a key for HS256 of {len(key.key)} bytes: use {SECRET_BYTES_MIN} or more"
    if algorithm == "RS256" and key.key.key_size < RSA_BITS_MIN:
        return f"has a key for RS256 of {key.key.key_size} bits: use {RSA_BITS_MIN} or more"
    return ""
