"""The other side of a connection of the line protocol, without a socket."""

from __future__ import annotations

from broker.clients.faces import Peer
from broker.clients.line_client import LineClient
from broker.clients.services import Services
from broker.config import Config
from tests.support.clients import HERE, NOTHING_TO_TELL, Transport, services
from tests.support.world import World


class Lines:
    """A connection of the line protocol: what its peer writes, and the lines that it gets."""

    def __init__(
        self,
        world: World,
        config: Config = NOTHING_TO_TELL,
        *,
        confirm: bool = True,
        peer: Peer = HERE,
    ) -> None:
        """`confirm`: it asks for answers first."""
        self.world = world
        self.transport = Transport()
        self.services: Services = services(world, config)
        self.client = LineClient(self.services, self.transport, peer, world.clock.monotonic())
        if confirm:
            self.says("CONFIRM")
            assert self.written() == ["OK"]

    def says(self, *lines: str) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        self.client.receive(data, self.world.clock.monotonic())

    def written(self) -> list[str]:
        """The lines since this was asked last; of a DELIVER its message."""
        lines = self.transport.written.decode().splitlines()
        self.transport.written = b""
        return [line.split(" ")[2] if line.startswith("DELIVER") else line for line in lines]

    async def gets(self) -> list[str]:
        """The same, when all that is on its way has come."""
        await self.world.settled()
        return self.written()
