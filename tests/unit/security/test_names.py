"""What users and roles may be called."""

from __future__ import annotations

import pytest

from broker.errors import CommandRefused
from broker.security.names import NAME_BYTES_MAX, validate_role, validate_user


@pytest.mark.parametrize("name", ["anna", "Anna Ö.", "a/b+#", "x" * NAME_BYTES_MAX])
def test_a_user_may_be_called_almost_anything(name: str) -> None:
    validate_user(name)


@pytest.mark.parametrize(
    "name", ["", "a:b", "a\nb", "a\0b", "\udcff", "x" * (NAME_BYTES_MAX + 1), "ö" * NAME_BYTES_MAX]
)
def test_but_not_what_a_password_file_cannot_hold(name: str) -> None:
    with pytest.raises(CommandRefused, match="no name for a user"):
        validate_user(name)


def test_roles_are_separated_by_spaces() -> None:
    validate_role("night-shift")
    with pytest.raises(CommandRefused, match="no name for a role"):
        validate_role("night shift")
