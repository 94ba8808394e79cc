"""Settings that are no plain values, for `BrokerProcess`."""

from __future__ import annotations


class Toml(str):
    """Stands in the file of settings as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
