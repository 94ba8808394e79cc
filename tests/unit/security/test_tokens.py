"""JSON Web Tokens: who brings one, and why not."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from broker.errors import ConfigError
from broker.security.names import Login
from broker.security.tokens import Claims, TokenRefused, Tokens, is_token

NOW_S = 1_700_000_000.0
SECRET = b"a secret of thirty-two bytes or so"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SHORT_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)
EC = ec.generate_private_key(ec.SECP256R1())
KEYS = [
    {"kty": "oct", "kid": "h", "alg": "HS256", "k": base64.urlsafe_b64encode(SECRET).decode()},
    {**RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True), "kid": "r", "alg": "RS256"},
    {**ECAlgorithm.to_jwk(EC.public_key(), as_dict=True), "kid": "e", "alg": "ES256"},
]
SIGNERS: dict[str, Any] = {"HS256": SECRET, "RS256": RSA, "ES256": EC}
ANNA = {"sub": "anna", "roles": ["night", "day"], "exp": NOW_S + 60}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": KEYS}))
    return path


def signed(claims: dict[str, Any] = ANNA, algorithm: str = "HS256", **header: str) -> bytes:
    return jwt.encode(claims, SIGNERS[algorithm], algorithm, header or None).encode()


@pytest.mark.parametrize(
    ("keys", "mode", "told"),
    [
        (KEYS, 0o600, ""),
        (KEYS, 0o640, ""),
        (KEYS, 0o644, "others may read or change the keys of tokens"),
        (KEYS[1:], 0o644, ""),
        (KEYS[1:], 0o664, "others may change the keys of tokens"),
    ],
)
def test_a_file_of_keys_that_others_may_use_is_told(
    path: Path, keys: list[object], mode: int, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_text(json.dumps({"keys": keys}))
    path.chmod(mode)
    Tokens(path, Claims())
    assert [each.getMessage().partition(" /")[0] for each in caplog.records] == [
        *filter(None, [told])
    ]


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_who_brings_a_token_is_who_it_says(path: Path, algorithm: str) -> None:
    token = signed(ANNA, algorithm)
    assert is_token(token)
    anna = Login("anna", ("night", "day"), expires_at_s=NOW_S + 60)
    assert Tokens(path, Claims()).login(token, NOW_S) == anna
    named = signed(ANNA, algorithm, kid=algorithm[0].lower())
    assert Tokens(path, Claims()).login(named, NOW_S) == anna


def test_claims_may_have_other_names_and_roles_may_be_the_users_own(path: Path) -> None:
    claims = {"name": "bob", "groups": "a b", "exp": NOW_S + 1, "iss": "us", "aud": ["x", "y"]}
    tokens = Tokens(path, Claims("us", "y", "name", "groups"))
    assert tokens.login(signed(claims), NOW_S) == Login("bob", ("a", "b"), expires_at_s=NOW_S + 1)
    del claims["groups"]
    assert tokens.login(signed(claims), NOW_S).roles is None


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"eyJ..",
        b"\xff.\xff.\xff",
        signed()[:-4] + b"AAAA",
        signed(ANNA | {"exp": NOW_S}),
        signed(ANNA | {"nbf": NOW_S + 3600}),
        signed(ANNA | {"exp": "soon"}),
        signed({"sub": "anna"}),
        signed({"exp": NOW_S + 60}),
        signed(ANNA | {"sub": ""}),
        signed(ANNA | {"roles": 5}),
        signed(ANNA | {"roles": [5]}),
        signed(ANNA, kid="r"),
        signed(ANNA, kid="none"),
        jwt.encode(ANNA, "another secret of thirty-two bytes..", "HS256").encode(),
        jwt.encode(ANNA, SECRET * 2, "HS512").encode(),
        jwt.encode(ANNA, "", "none").encode(),
        signed(ANNA | {"x": "y" * 20_000}),
        signed(ANNA | {"exp": float("inf")}),
        signed(ANNA | {"exp": float("nan")}),
        signed(ANNA | {"exp": 10**400}),
        signed(ANNA | {"exp": 10**4000}),
        signed(ANNA | {"nbf": float("nan")}),
        signed(ANNA | {"sub": "half a surrogate pair \ud800"}),
        signed(ANNA | {"sub": "two\nlines"}),
        signed(ANNA | {"sub": "a" * 257}),
        signed(ANNA | {"roles": ["\udfff"]}),
        signed(ANNA | {"roles": [""]}),
        base64.urlsafe_b64encode(b'{"alg": "HS256", "x":' + b"[" * 9_000) + b".e30.e30",
    ],
)
def test_a_token_that_is_not_right_is_refused(path: Path, token: bytes) -> None:
    with pytest.raises(TokenRefused):
        Tokens(path, Claims()).login(token, NOW_S)


@pytest.mark.parametrize("claims", [Claims(issuer="us"), Claims(audience="us")])
def test_the_issuer_and_the_audience_count(path: Path, claims: Claims) -> None:
    tokens = Tokens(path, claims)
    for wrong in ({}, {"iss": "them", "aud": "them"}):
        with pytest.raises(TokenRefused):
            tokens.login(signed(ANNA | wrong), NOW_S)
    tokens.login(signed(ANNA | {"iss": "us", "aud": "us"}), NOW_S)


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"keys": []}', '{"keys": [{}]}', '{"keys": 5}', "[]", '{"keys": [5]}',
     '{"keys": [{"kty": "oct", "k": "YWJj", "alg": "HS512"}]}',
     '{"keys": [{"kty": "oct", "k": "YWJj", "alg": "HS256"}]}',
     json.dumps({"keys": [RSAAlgorithm.to_jwk(SHORT_RSA.public_key(), as_dict=True)]}),
     '{"keys": {"a": 1}}', '{"keys":' + "[" * 100_000],
)  # fmt: skip
def test_a_file_that_is_no_key_set_is_refused_and_the_old_keys_stay(
    path: Path, content: str
) -> None:
    tokens = Tokens(path, Claims())
    path.write_text(content)
    with pytest.raises(ConfigError, match="jwt_keys"):
        Tokens(path, Claims())
    assert tokens.login(signed(), NOW_S).user == "anna"


def test_keys_that_encrypt_are_passed_over(path: Path) -> None:
    """Keycloak and others publish them in the same set."""
    encrypts = {"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "n": "AQAB", "e": "AQAB"}
    path.write_text(json.dumps({"keys": [encrypts, *KEYS]}))
    assert Tokens(path, Claims()).login(signed(), NOW_S).user == "anna"


def test_only_keys_that_are_there_count(path: Path) -> None:
    path.write_text(json.dumps({"keys": KEYS[1:]}))
    tokens = Tokens(path, Claims())
    with pytest.raises(TokenRefused):
        tokens.login(signed(), NOW_S)
    tokens.login(signed(ANNA, "RS256"), NOW_S)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.tuples(st.integers(0, 150), st.integers(0, 255)))
def test_whatever_comes_nothing_else_is_raised(path: Path, change: bytes | tuple[int, int]) -> None:
    token = bytearray(signed())
    if isinstance(change, tuple):
        at, byte = change
        token[at % len(token)] = byte
        if bytes(token) == signed():
            return
    else:
        token[:] = change
    try:
        Tokens(path, Claims()).login(bytes(token), NOW_S)
    except TokenRefused:
        return
    # The last character of the signature may have bits that do not count.
    assert bytes(token).split(b".")[:2] == signed().split(b".")[:2]
