"""Members of a Shared Subscription in a `World`."""

from __future__ import annotations

from collections.abc import Callable

from broker.documents import Delete, SubscriptionDocument
from tests.support.messages import message
from tests.support.world import Subscriber, World, payloads, placed, subscription

GROUP = "$share/workers/jobs/#"


async def member(
    world: World,
    client_id: str,
    *,
    window: int = 100,
    expiry_s: int = 0,
    qos: int = 1,
    kind: Callable[[World], Subscriber] = Subscriber,
) -> Subscriber:
    """Comes and joins; one that was there before is attached to what it had."""
    joining = kind(world)
    await joining.open(client_id, receive_maximum=window, expiry_s=expiry_s)
    assert joining.session is not None
    if GROUP in joining.session.subscriptions:
        await world.groups.attach(joining.session, joining)
    else:
        document = subscription(GROUP, qos, client_id=client_id)
        await world.groups.join(joining.session, document, joining)
        if expiry_s:
            joining.subscribe(document)
        else:
            world.delivery.subscribe(joining.session, document)
    return joining


async def publish(world: World, first: int, last: int, *, qos: int = 1) -> None:
    numbers = range(first, last + 1)
    await world.publish(*[message(str(n), "jobs/a", qos=qos) for n in numbers])


def numbers(*subscribers: Subscriber) -> list[int]:
    return sorted(int(payload) for s in subscribers for payload in payloads(s.got))


async def unsubscribe(world: World, worker: Subscriber) -> None:
    session = placed(worker)
    world.delivery.unsubscribe(session, GROUP)
    key = (session.client_id, GROUP)
    await world.passing_time(world.log.commit_now([Delete(SubscriptionDocument, key)]))
    world.groups.leave(session, GROUP)
