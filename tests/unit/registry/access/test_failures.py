"""Who failed to log in waits, and so does who comes from there."""

from __future__ import annotations

import pytest

from broker.message import Monotonic
from broker.registry.access import failures as module
from broker.registry.access.failures import (
    FORGOTTEN_AFTER_S,
    FREE,
    PAUSE_FIRST_S,
    PAUSE_MAX_S,
    WAIT_MAX_S,
    Failures,
    address_of,
)

NOW = Monotonic(1000.0)


def failed(times: int, address: str = "a") -> Failures:
    failures = Failures()
    for _ in range(times):
        failures.failed(address, NOW)
    return failures


def test_the_first_cost_nothing() -> None:
    assert failed(FREE - 1).wait_s("a", NOW) == 0


def test_then_each_login_from_there_waits_for_its_turn_and_others_do_not() -> None:
    failures = failed(FREE)
    assert failures.wait_s("a", NOW) == PAUSE_FIRST_S
    assert failures.wait_s("a", NOW) == 2 * PAUSE_FIRST_S
    assert failures.wait_s("b", NOW) == 0
    assert failures.failed("a", NOW) == FREE + 1
    assert failures.wait_s("a", NOW) == 2 * PAUSE_FIRST_S + 2 * PAUSE_FIRST_S


def test_who_would_wait_too_long_is_refused() -> None:
    failures = failed(FREE + 50)
    waits = [failures.wait_s("a", NOW) for _ in range(100)]
    assert waits[0] == PAUSE_MAX_S
    accepted = [wait for wait in waits if wait is not None]
    assert len(accepted) == WAIT_MAX_S // PAUSE_MAX_S
    assert max(accepted) <= WAIT_MAX_S


def test_it_is_forgotten_in_time() -> None:
    failures = failed(FREE + 3)
    later = Monotonic(NOW + FORGOTTEN_AFTER_S + 1)
    assert failures.wait_s("a", later) == 0
    assert failures.failed("a", later) == 1


def test_only_so_many_addresses_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESSES_MAX", 2)
    failures = failed(FREE)
    failures.failed("b", NOW)
    failures.failed("a", NOW)
    failures.failed("c", NOW)
    assert len(failures) == 2
    assert failures.wait_s("a", NOW)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_customer_is_one_address(host: str, address: str) -> None:
    assert address_of(host) == address
