"""Passwords: what is kept instead of one, and whether one fits that.

We keep argon2id. The two older forms of Mosquitto's password files are verified as they are: `$6$`
(SHA-512 of password and salt) and `$7$` (PBKDF2 with SHA-512). A hash takes tens of milliseconds
and MEMORY_KIB, outside the interpreter's lock: call these in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import verify_secret

ROUNDS = 2
MEMORY_KIB = 19 * 1024
LANES = 1
"""The least that OWASP recommends for argon2id: about 50 ms of one core."""
PASSWORD_BYTES_MAX = 65_535
"""What CONNECT can carry."""
KINDS = ("$argon2id$", "$7$", "$6$")

_MEMORY_KIB_ROUNDS_MAX = 1024 * 1024
_LANES_MAX = 16
_ITERATIONS_MAX = 1_000_000
"""About a second. A file that asks for more would hold up everybody's logins."""
_PARAMETERS = re.compile(r"\$argon2id\$v=19\$m=(\d{1,9}),t=(\d{1,9}),p=(\d{1,9})\$", re.ASCII)
_WHOLE = re.compile(rf"{_PARAMETERS.pattern}[A-Za-z0-9+/]{{11,}}\$[A-Za-z0-9+/]{{16,}}", re.ASCII)

_hasher = PasswordHasher(time_cost=ROUNDS, memory_cost=MEMORY_KIB, parallelism=LANES)
NOBODYS = (
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5J3Mgc2FsdCE$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
"""No password fits it. To find that out costs as much as a wrong password of a user."""


def hashed(password: bytes) -> str:
    """What to keep, with a new salt."""
    return _hasher.hash(password)


def fits(password: bytes, kept: str) -> bool:
    """Whether this is the password of which `kept` was made; "": there is none that fits.

    What does not fit costs at least one argon2id, whatever was kept, so that the time tells nobody
    which users there are.
    """
    if kept.startswith("$argon2id$"):
        return _argon2_fits(password, kept)
    if kept and _mosquitto_fits(password, kept):
        return True
    _argon2_fits(password, NOBODYS)
    return False


def is_ours(kept: str) -> bool:
    """Whether it was made as `hashed` makes it now."""
    found = _PARAMETERS.match(kept)
    return found is not None and [*map(int, found.groups())] == [MEMORY_KIB, ROUNDS, LANES]


def refusal(kept: str) -> str:
    """Why this cannot be used as a password's hash; empty: it can. It is not computed."""
    if kept.startswith("$argon2id$"):
        found = _WHOLE.fullmatch(kept)
        if found is None:
            return "its argon2id is not whole"
        memory_kib, rounds, lanes = map(int, found.groups())
        if memory_kib * rounds > _MEMORY_KIB_ROUNDS_MAX or lanes > _LANES_MAX:
            return "its argon2id costs too much"
        return "" if memory_kib >= 8 * lanes > 0 < rounds else "its argon2id is not whole"
    if not kept.startswith(KINDS):
        return f"it is none of {', '.join(KINDS)}: is it a password? `mosquitto_passwd -U` hashes"
    return "" if _parts(kept) else "it is not whole"


def _argon2_fits(password: bytes, kept: str) -> bool:
    try:
        return verify_secret(kept.encode(), password, Type.ID)
    except (VerificationError, InvalidHashError):
        return False


def _mosquitto_fits(password: bytes, kept: str) -> bool:
    # To HMAC, zeros at the end of a key make no difference. Mosquitto has passwords without any.
    if b"\0" in password or (parts := _parts(kept)) is None:
        return False
    iterations, salt, digest = parts
    if iterations:
        made = hashlib.pbkdf2_hmac("sha512", password, salt, iterations, len(digest))
    else:
        made = hashlib.sha512(password + salt).digest()
    return hmac.compare_digest(made, digest)


def _parts(kept: str) -> tuple[int, bytes, bytes] | None:
    """Iterations (0: `$6$` has none), salt and digest; None: it is damaged, or of another kind."""
    if not kept.startswith(("$6$", "$7$")):
        return None
    iterations, fields = 0, kept[3:].split("$")
    if kept.startswith("$7$"):
        text, *fields = fields
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
            return None
        iterations = int(text)
        if not 0 < iterations <= _ITERATIONS_MAX:
            return None
    if len(fields) != 2:
        return None
    try:
        salt, digest = (base64.b64decode(field, validate=True) for field in fields)
    except (binascii.Error, ValueError):
        return None
    return (iterations, salt, digest) if len(digest) == 64 and salt else None
