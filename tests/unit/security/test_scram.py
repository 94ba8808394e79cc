"""SCRAM-SHA-256, against a second implementation of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BadUserNameOrPassword
from broker.security.scram import ITERATIONS, METHOD, ScramExchange, keys, refusal
from tests.support.scram_client import ScramClient

KEPT = {"anna": keys("secret"), "a,b=c": keys("geheim")}
SECRET = bytes(32)


class Side:
    """The broker's."""

    def __init__(self, secret: bytes = SECRET) -> None:
        self.failed: list[str] = []
        self.exchange = ScramExchange(
            lambda name: KEPT.get(name, ""), self.failed.append, secret, at_once=True
        )

    def run(self, client: ScramClient) -> bytes | None:
        challenge, done = self.exchange.step(client.first())
        assert not done
        assert challenge is not None
        final, done = self.exchange.step(client.final(challenge))
        assert done
        return final


@pytest.mark.parametrize(("user", "password"), [("anna", "secret"), ("a,b=c", "geheim")])
def test_both_sides_prove_that_they_know_the_password(user: str, password: str) -> None:
    side, client = Side(), ScramClient(user, password)
    assert client.trusts(side.run(client))
    assert side.exchange.user == user
    assert side.failed == []


@pytest.mark.parametrize(("user", "password"), [("anna", "Secret"), ("bob", "secret"), ("", "")])
def test_who_does_not_know_it_is_refused(user: str, password: str) -> None:
    side = Side()
    with pytest.raises(BadUserNameOrPassword):
        side.run(ScramClient(user, password))
    assert side.exchange.user is None
    assert len(side.failed) == 1


def test_an_old_proof_is_of_no_use() -> None:
    client, first, second = ScramClient("anna", "secret"), Side(), Side()
    challenge, _ = first.exchange.step(client.first())
    assert challenge is not None
    proof = client.final(challenge)
    first.exchange.step(proof)
    second.exchange.step(client.first())
    with pytest.raises(BadUserNameOrPassword):
        second.exchange.step(proof)


def test_a_user_who_is_not_there_looks_like_one_who_is() -> None:
    def salt(side: Side) -> tuple[bytes, bytes]:
        challenge, _ = side.exchange.step(ScramClient("bob", "x").first())
        assert challenge is not None
        _, salt, iterations = challenge.split(b",")
        return salt, iterations

    assert salt(Side()) == salt(Side())
    assert salt(Side()) != salt(Side(bytes([1]) * 32))
    there, _ = Side().exchange.step(ScramClient("anna", "x").first())
    assert there is not None
    assert [len(part) for part in there.split(b",")[1:]] == [len(part) for part in salt(Side())]


def test_the_first_message_may_come_after_connect() -> None:
    side = Side()
    assert side.exchange.step(b"") == (None, False)
    client = ScramClient("anna", "secret")
    assert client.trusts(side.run(client))


def test_what_is_kept_is_not_the_password_and_can_be_checked() -> None:
    assert KEPT["anna"].startswith(f"{METHOD}${ITERATIONS}$")
    assert refusal(KEPT["anna"]) == ""
    assert keys("secret") != keys("secret")
    for damaged in ("", "x", KEPT["anna"][:-9], KEPT["anna"].replace("10000", "1")):
        assert refusal(damaged)
    with pytest.raises(ValueError, match=r"."):
        keys("a\x00b")


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"n,,n=anna,r=x", b"c=biws,r=x,p=eA=="])))
def test_whatever_a_client_sends_it_is_refused_and_nothing_else_is_raised(
    messages: list[bytes],
) -> None:
    side = Side()
    for message in messages:
        try:
            _, done = side.exchange.step(message)
        except BadUserNameOrPassword:
            break
        assert not done
