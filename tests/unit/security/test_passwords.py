"""What is kept of a password, and what fits it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.security import passwords
from broker.security.passwords import NOBODYS, fits, hashed, is_ours, refusal
from tests.support.passwords import KEPT, PBKDF2

SALT = "dHdlbHZlIGJ5dGVz"


@pytest.mark.parametrize("kept", KEPT, ids=["argon2id", "$6$", "$7$"])
def test_the_password_fits_and_no_other(kept: str) -> None:
    assert fits(b"secret", kept)
    for other in (b"", b"Secret", b"secret ", b"secret\0", b"\xff\xfe"):
        assert not fits(other, kept)
    assert refusal(kept) == ""


def test_nothing_fits_where_there_is_no_password() -> None:
    assert not fits(b"", "")
    assert not fits(b"", NOBODYS)
    assert not fits(b"nobody", NOBODYS)


def test_each_has_a_salt_of_its_own_and_is_not_the_password() -> None:
    assert hashed(b"secret") != KEPT[0]
    assert "secret" not in KEPT[0]


def test_only_what_is_made_as_now_is_ours() -> None:
    assert is_ours(KEPT[0])
    assert is_ours(NOBODYS)
    assert not any(map(is_ours, KEPT[1:]))
    assert not is_ours(KEPT[0].replace("t=2", "t=3"))


@pytest.mark.parametrize("kept", ["", *KEPT], ids=["unknown user", "argon2id", "$6$", "$7$"])
def test_a_wrong_password_always_costs_an_argon2id(
    kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = passwords._argon2_fits

    def counted(password: bytes, kept: str) -> bool:
        made.append(kept)
        return real(password, kept)

    monkeypatch.setattr(passwords, "_argon2_fits", counted)
    assert not fits(b"wrong", kept)
    assert len(made) == 1
    assert is_ours(made[0])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "secret",
        "$5$abc$def",
        "$6$",
        "$6$onlysalt",
        f"$6${SALT}$dG9vIHNob3J0",
        f"$6$%%%${SALT}",
        "$7$101",
        f"$7$x${SALT}${SALT}",
        PBKDF2.replace("$101$", "$0$"),
        PBKDF2.replace("$101$", "$999999999$"),
        PBKDF2.replace("$101$", "$١$"),
        "$argon2id$",
        "$argon2id$v=19$m=65536,t=3,p=4$",
        "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$%%%",
        "$argon2id$v=19$m=999999999,t=3,p=4$c2FsdHNhbHQ$c2FsdHNhbHQ",
        KEPT[0].replace("argon2id", "argon2i"),
    ],
)
def test_a_line_that_is_no_hash_is_refused_and_fits_nothing(line: str) -> None:
    assert refusal(line)
    if "999999999" not in line:
        assert not fits(b"secret", line)


@given(st.text(), st.binary(max_size=20))
def test_whatever_is_in_a_file_raises_nothing(rest: str, password: bytes) -> None:
    for kind in ("$6$", "$7$", "$7$3$", "$argon2id$", "$argon2id$v=19$m=8,t=1,p=1$", ""):
        if refusal(kind + rest):
            assert not passwords._mosquitto_fits(password, kind + rest)


def test_a_hash_takes_tens_of_milliseconds_and_not_a_second() -> None:
    began = time.process_time()
    fits(b"wrong", KEPT[0])
    assert 0.005 < time.process_time() - began < 1
