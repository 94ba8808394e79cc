"""Which members of a group may have a message. (With clients: clients/test_permitted.py)"""

from __future__ import annotations

from broker.delivery.sender import TOO_LARGE
from broker.message import Offset
from broker.registry.groups.readership import FOR_NOBODY, may_read, why_not
from broker.security.rights import Rights
from broker.session.session import Session
from tests.support.messages import message
from tests.support.rulebook import Rulebook


def member(*rules: str) -> Session:
    session = Session("c1", created_at_us=0, start=Offset(0), inflight_max=1)
    session.attach(1, Rights(Rulebook(*rules), "anna", None, "c1") if rules else Rights.ALL)
    return session


def test_a_message_is_for_nobody_if_no_member_may_read_it() -> None:
    of_a, of_b, of_all = member("allow subscribe a"), member("allow subscribe b"), member()
    assert may_read(of_a, message("", "a"))
    assert not may_read(of_a, message("", "b"))
    assert why_not([of_a, of_b], message("", "b")) == TOO_LARGE
    assert why_not([of_a, of_b], message("", "c")) == FOR_NOBODY
    assert why_not([of_a, of_all], message("", "c")) == TOO_LARGE
    assert why_not([], message("", "c")) == TOO_LARGE, "who is not there may read it"
