"""How often and how soon a group tries again."""

from __future__ import annotations

from broker.documents.queues import GroupDocument
from broker.registry.groups.policy import DEFAULT, Policy


def test_pauses_double_up_to_the_longest() -> None:
    policy = Policy(backoff_first_s=1, backoff_max_s=10)
    assert [policy.backoff_s(n) for n in (1, 2, 3, 4, 5, 1_000_000)] == [1, 2, 4, 8, 10, 10]


def test_a_refusal_is_final_unless_a_command_made_the_group() -> None:
    """[MQTT-4.8.2-6]"""
    assert Policy.of(None) is DEFAULT
    assert DEFAULT.refusals_are_final
    made = Policy.of(GroupDocument("$share/g/t", 7, 250, 9000, 1500, 1))
    assert made == Policy(7, 0.25, 9.0, 1.5, refusals_are_final=False)
