from __future__ import annotations

import inspect

import pytest

from broker import errors
from broker.errors import (
    BadUserNameOrPassword,
    CommandRefused,
    ConfigError,
    LoginRefused,
    MessageRefused,
    PeerError,
    ProofFailed,
    PubSubError,
    QuotaExceeded,
    RetainedQuotaExceeded,
    StoreError,
    StoreFull,
    StoreUnavailable,
    TooManyLogins,
    TopicNameInvalid,
    TopicNameRefused,
)
from broker.mqtt.reasons import ERROR, ReasonCode

ALL = [each for _, each in inspect.getmembers(errors, inspect.isclass)]
PEER_ERRORS = [each for each in ALL if issubclass(each, PeerError)]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_of_one_of_the_kinds(error: type[PubSubError]) -> None:
    """Each kind is caught in one place."""
    roots = ConfigError, CommandRefused, PeerError, StoreError
    kinds = [kind for kind in roots if issubclass(error, kind)]
    assert issubclass(error, PubSubError)
    assert len(kinds) == (error is not PubSubError)


@pytest.mark.parametrize("error", PEER_ERRORS)
def test_what_a_peer_did_has_a_reason_code_that_says_it_failed(error: type[PeerError]) -> None:
    """2.4"""
    assert ReasonCode(error.reason_code) >= ERROR


def test_no_two_faults_of_a_peer_share_a_reason_code() -> None:
    """But for those that only say who tells the operator."""
    shared = {MessageRefused, TopicNameRefused, LoginRefused, ProofFailed}
    shared |= {TooManyLogins, RetainedQuotaExceeded}
    kinds = [error for error in PEER_ERRORS if error not in shared]
    assert len({error.reason_code for error in kinds}) == len(kinds)
    assert TooManyLogins.reason_code == QuotaExceeded.reason_code
    assert RetainedQuotaExceeded.reason_code == QuotaExceeded.reason_code
    assert ProofFailed.reason_code == BadUserNameOrPassword.reason_code
    assert TopicNameRefused.reason_code == TopicNameInvalid.reason_code


def test_what_a_peer_did_can_be_told_to_it() -> None:
    error = TopicNameInvalid("Topic Name has a wildcard")
    assert error.reason == str(error) == "Topic Name has a wildcard"


def test_a_setting_that_cannot_work_is_named_with_its_value_and_a_remedy() -> None:
    error = ConfigError("port", 70_000, "must be below 65536")
    assert str(error) == "port = 70000: must be below 65536"
    assert (error.key, error.value, error.remedy) == ("port", 70_000, "must be below 65536")


def test_who_tries_again_when_the_store_is_unavailable_does_so_too_when_it_is_full() -> None:
    assert issubclass(StoreFull, StoreUnavailable)


@pytest.mark.parametrize("error", [each for each in ALL if issubclass(each, StoreError)])
def test_clients_hear_nothing_of_the_brokers_files(error: type[StoreError]) -> None:
    failure = error("/var/lib/pubsub/pubsub.db: what the operator needs")
    assert "pubsub.db" in str(failure)
    assert "/" not in failure.reason
    assert failure.reason


def test_what_cannot_be_done_is_said_with_what_can() -> None:
    error = CommandRefused("there is a subscriber a already", "remove it first")
    assert str(error) == "there is a subscriber a already; remove it first"
    assert str(CommandRefused("no")) == "no"
