"""Enhanced authentication (section 4.12): what a method has to be, to be plugged in. No method yet
of our own; a program that has the broker in its process gives `Server` its `methods`.

`Connection` runs the exchange: CONNECT names the method and may bring the first data, AUTH packets
go to and fro until the exchange is done, and only then is there a `Connect` event. A connected
client may authenticate again by the same method.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol


class Exchange(Protocol):
    """One run of a method for one client. Pure: it waits for nobody."""

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        """Take the client's data (empty if it sent none); what to answer, and whether it is done.

        Raises NotAuthorized: the client is not who it says.
        """
        ...


Methods = Mapping[str, Callable[[], Exchange]]
"""By the name that CONNECT gives as Authentication Method."""
