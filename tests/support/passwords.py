"""What is kept of the password "secret": as we keep it, and as mosquitto_passwd 2.0 writes it."""

from __future__ import annotations

from broker.documents import UserDocument
from broker.message import WallUs

ARGON2ID = (
    "$argon2id$v=19$m=19456,t=2,p=1"
    "$MY9ZO+HxtTxGxUrBF5YBSQ$hGn0USGUvPWVEDi+0Et0RTwC27dja7z7GSl5ti2WVeU"
)
SHA512 = (
    "$6$Y4N99inO+zC+KiER"
    "$dpkRbAT+G3/3pBdBDqoL9IU7fchj/xCcV/aai7+4zU6HMJgd0/gyaW3uC54bsEfTJEE8PUaiWYOkGdlmJtnSMg=="
)
PBKDF2 = (
    "$7$101$BdBhvZd5wL7yq1S6"
    "$/N35oWuO+advC949ohiTsP/q1m8c2RH1vZj8R6tIEQ0CsgLb+l9HEk7gqbV1KQ75ZGxsIsqzJiMkF5KW1vzlGg=="
)
KEPT = (ARGON2ID, SHA512, PBKDF2)


def user(name: str, kept: str = ARGON2ID, *, roles: str = "standard") -> UserDocument:
    """Whose password is "secret"."""
    return UserDocument(name, kept, "", roles, WallUs(1), WallUs(1))
