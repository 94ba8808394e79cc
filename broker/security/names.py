"""Names of users and roles, and what a connection has shown of who it is."""

from __future__ import annotations

from dataclasses import dataclass

from broker.errors import CommandInvalid
from broker.topics import has_control_character

ANONYMOUS = "anonymous"
"""The user of who gives no name. While there are no users, everybody is, and may do everything."""
STANDARD = "standard"
"""The role that new users have: ordinary topics."""
ADMIN = "admin"
"""The role that may do everything."""
NAME_BYTES_MAX = 256


@dataclass(slots=True, frozen=True)
class Login:
    """Who a connection is. `roles`: of a token, which names them; None: those of the user.
    `may_stay`: also when the first user is made. `expires_at_s`: it may be here until then, by the
    wall clock (Unix time)."""

    user: str
    roles: tuple[str, ...] | None = None
    by_password: bool = False
    may_stay: bool = True
    expires_at_s: float | None = None


def validate_user(name: str) -> None:
    """Raises CommandInvalid: nobody can have that name. A colon would end it in a password file."""
    _validate(name, "user", forbidden=":")


def validate_role(name: str) -> None:
    """Raises CommandInvalid: no role can have that name. Spaces separate roles."""
    _validate(name, "role", forbidden=": ")


def _validate(name: str, what: str, forbidden: str) -> None:
    if (
        not name
        or len(name.encode(errors="replace")) > NAME_BYTES_MAX
        or has_control_character(name)
        or any(character in name for character in forbidden)
    ):
        raise CommandInvalid(
            f"this is no name for a {what}",
            f"use 1 to {NAME_BYTES_MAX} bytes that print, without"
            f" {'a colon' if forbidden == ':' else 'colons and spaces'}",
        )
