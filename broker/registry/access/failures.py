"""Failures: logins that failed, by address, and how long the next from there has to wait.

The first FREE failures cost nothing. After these, logins from the address are looked at one by one,
with a pause before each that doubles up to PAUSE_MAX_S; the address is forgotten FORGOTTEN_AFTER_S
after its last failure. Of IPv6 the first 64 bits count, as one customer has them all.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from broker.message import Monotonic

FREE = 5
PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 8.0
WAIT_MAX_S = 30.0
"""Who would have to wait for longer is refused."""
FORGOTTEN_AFTER_S = 900.0
ADDRESSES_MAX = 10_000
"""Beyond, the address that failed longest ago is forgotten. About 200 bytes each."""


@dataclass(slots=True)
class _Address:
    count: int
    last_at: Monotonic
    next_at: Monotonic
    """When a login from there is looked at again."""


class Failures:
    def __init__(self) -> None:
        self._by_address: dict[str, _Address] = {}
        """The one that failed last comes last."""

    def __len__(self) -> int:
        return len(self._by_address)

    def failed(self, address: str, now: Monotonic) -> int:
        """How often by now."""
        known = self._by_address.pop(address, None)
        if known is None or now - known.last_at > FORGOTTEN_AFTER_S:
            known = _Address(0, now, now)
        known.count += 1
        known.last_at = now
        self._by_address[address] = known
        if len(self._by_address) > ADDRESSES_MAX:
            del self._by_address[next(iter(self._by_address))]
        return known.count

    def wait_s(self, address: str, now: Monotonic) -> float | None:
        """How long a login from there has to wait; None: it is refused."""
        known = self._by_address.get(address)
        if known is None or known.count < FREE or now - known.last_at > FORGOTTEN_AFTER_S:
            return 0.0
        at = max(now, known.next_at) + _pause_s(known)
        if at - now > WAIT_MAX_S:
            return None
        known.next_at = Monotonic(at)
        return at - now


def _pause_s(known: _Address) -> float:
    return min(PAUSE_FIRST_S * 2.0 ** min(known.count - FREE, 10), PAUSE_MAX_S)


def address_of(host: str) -> str:
    """What failures count for; "": a Unix socket."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
