"""SCRAM-SHA-256 (RFC 5802, 7677): a client proves that it knows the password, and learns that the
broker knows it, without either sending it. The library `scramp` knows the messages.

What is kept of the password for this, its *keys*, is cheaper to guess from than argon2id. So only
users that were made for it have them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable

from broker.errors import BadUserNameOrPassword, ProofFailed

METHOD = "SCRAM-SHA-256"
ITERATIONS = 10_000
"""The client computes them at each login, and a small device has to be able to."""
MESSAGE_BYTES_MAX = 4096

FindKeys = Callable[[str], str]
"""The keys of a user; empty: there is no such user, or none that was made for this."""
Failed = Callable[[str], None]
"""Is told the name that was given."""


def keys(password: str) -> str:
    """What to keep of it, with a new salt. Takes some 10 ms. Raises ValueError: the standard does
    not permit the password (a control character in it)."""
    from scramp import ScramException, ScramMechanism

    try:
        made = ScramMechanism(METHOD).make_auth_info(password, iteration_count=ITERATIONS)
    except ScramException as error:
        raise ValueError(str(error)) from error
    salt, stored_key, server_key, iterations = made
    texts = [base64.b64encode(one).decode() for one in (salt, stored_key, server_key)]
    return "$".join([METHOD, str(iterations), *texts])


def refusal(kept: str) -> str:
    """Why this is not what `keys` makes; empty: it is."""
    try:
        _parts(kept)
    except ValueError:
        return "the keys for SCRAM-SHA-256 are not whole"
    return ""


class ScramExchange:
    """One run for one client. An `Exchange` of `mqtt.authentication`: it computes two HMACs.

    Who is not there is asked for a proof like anybody else, with a salt that stays the same as long
    as `secret` does. A wrong proof is `failed` `at_once`, or ProofFailed is raised.
    """

    def __init__(
        self, find: FindKeys, failed: Failed, secret: bytes, *, at_once: bool = False
    ) -> None:
        from scramp import ScramMechanism

        self.user: str | None = None
        """Who it is, once done."""
        self._find = find
        self._failed = failed
        self._secret = secret
        self._name = ""
        self._known = False
        self._begun = False
        self._at_once = at_once
        self._asked = False
        """Whether the client was asked for its proof."""
        self._server = ScramMechanism(METHOD).make_server(self._keys_of)

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        """Raises NotAuthorized."""
        if not data and not self._begun:
            return None, False  # The client's first message comes with the next packet.
        try:
            return self._step(data)
        except BadUserNameOrPassword:
            raise
        except Exception as error:  # Of scramp: it has none of its own for much that is malformed.
            raise self._refused() from error

    def _step(self, data: bytes) -> tuple[bytes | None, bool]:
        if len(data) > MESSAGE_BYTES_MAX:
            raise self._refused()
        if not self._begun:
            self._begun = True
            self._server.set_client_first(data.decode())
            challenge = self._server.get_server_first().encode()
            self._asked = True
            return challenge, False
        self._server.set_client_final(data.decode())
        final = self._server.get_server_final().encode()
        if not self._known:
            raise self._refused()
        self.user = self._name
        return final, True

    def _refused(self) -> BadUserNameOrPassword:
        if self._asked and not self._at_once:
            return ProofFailed(self._name)
        self._failed(self._name)
        return BadUserNameOrPassword("wrong user name or password")

    def _keys_of(self, name: str) -> tuple[bytes, bytes, bytes, int]:
        self._name = name
        kept = self._find(name)
        self._known = bool(kept)
        if kept:
            return _parts(kept)
        made = [
            hmac.digest(self._secret, b"%b %b" % (part, name.encode()), "sha256")
            for part in (b"salt", b"stored", b"server")
        ]
        return made[0], made[1], made[2], ITERATIONS


def _parts(kept: str) -> tuple[bytes, bytes, bytes, int]:
    """Salt, StoredKey, ServerKey and iterations. Raises ValueError."""
    method, iterations, *texts = kept.split("$")
    try:
        salt, stored_key, server_key = (base64.b64decode(text, validate=True) for text in texts)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if method != METHOD or len(stored_key) != 32 or len(server_key) != 32:
        raise ValueError("not of this method")
    if not 4096 <= int(iterations) <= 1_000_000:
        raise ValueError("iterations")
    return salt, stored_key, server_key, int(iterations)
