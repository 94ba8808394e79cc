"""Readership: which members of a group may have a message.

A message that no member may read is passed over, as if the group's filter did not match it, and
counted (P5): it must not hold up the others. One that a member had before is a dead letter. So is
any in a group that a command made: that may have members of several users, and whoever may read
least must not empty it for those that are away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from broker.delivery.sender import TOO_LARGE
from broker.message import Grant, Message
from broker.registry.faces import Member
from broker.session.session import Session

FOR_NOBODY = "no member of the group may read it"
"""Why it counts as dropped."""


def may_read(member: Session, message: Message) -> bool:
    rights = member.grants.rights
    return not rights.limited or rights.may_receive(message.topic)


def fits(
    member: Session,
    grant: Grant,
    client: Member,
    message: Message,
    failed: Callable[[Session, Exception], None],
) -> bool:
    """Whether the member may read the message, and its client takes packets of that size."""
    try:
        size_fits = not client.limits_packets or client.fits(message, grant)
    except Exception as error:
        # In the next turn, as it leaves the group then, which is busy with its members now.
        asyncio.get_running_loop().call_soon(failed, member, error)
        return False
    return size_fits and may_read(member, message)


def why_not(members: Collection[Session], message: Message) -> str:
    """Why a message fits none of these."""
    nobody = bool(members) and not any(may_read(member, message) for member in members)
    return FOR_NOBODY if nobody else TOO_LARGE
