"""Expiry: retained messages that have expired are forgotten, so that nobody reads them in vain.

Messages in the log stay where they are: they are left out when they are sent, and go with
retention.
"""

from __future__ import annotations

import logging

from broker.clock import Clock
from broker.errors import StoreError
from broker.log.log_time import LogTime
from broker.store import Store

INTERVAL_S = 60.0

logger = logging.getLogger(__name__)


async def forget_expired_forever(store: Store, time: LogTime, clock: Clock) -> None:
    """Every minute, until cancelled."""
    while True:
        await clock.sleep(INTERVAL_S)
        try:
            await store.forget_expired(time.aged_us())
        except StoreError as error:
            logger.warning("expired retained messages are not forgotten: %s", error)
