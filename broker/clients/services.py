"""Services: the parts of the broker that every client works with, handed to it in one object."""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker.clients.asking import Asking
from broker.clients.subscriptions import Subscriptions
from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.log.log import Log
from broker.mqtt.authentication import Methods
from broker.mqtt.limits import Limits
from broker.observe.sys_tree import SysTree
from broker.registry.access.logins import Logins
from broker.registry.access.permissions import Permissions
from broker.registry.access.quotas import Quotas
from broker.registry.access.users import Users
from broker.registry.groups.groups import Groups
from broker.registry.references import References
from broker.registry.sessions import Sessions
from broker.registry.wills import Wills
from broker.settings.listeners import Listener


@dataclass(slots=True, frozen=True)
class Services:
    """One for each listener, which may have limits of its own."""

    config: Config
    clock: Clock
    log: Log
    delivery: Delivery
    sessions: Sessions
    groups: Groups
    subscriptions: Subscriptions
    wills: Wills
    asking: Asking
    sys_tree: SysTree
    counters: Counters
    limits: Limits
    methods: Methods
    users: Users
    permissions: Permissions
    logins: Logins
    quotas: Quotas
    references: References

    def at(self, listener: Listener) -> Services:
        """As who connects to `listener` gets them."""
        config = self.config.at(listener)
        return replace(self, config=config, limits=Limits.of(config))
