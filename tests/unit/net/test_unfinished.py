from __future__ import annotations

from broker.net.unfinished import PASSED_OVER_MAX, STEP_BYTES, Unfinished

MIB = 1 << 20


class Holder:
    def __init__(self) -> None:
        self.is_held_back = False
        self.evicted = False

    def evict(self) -> None:
        self.evicted = True


def holders(number: int) -> list[Holder]:
    return [Holder() for _ in range(number)]


def evicted(among: list[Holder]) -> list[int]:
    return [index for index, holder in enumerate(among) if holder.evicted]


def test_what_all_keep_is_bounded() -> None:
    account, many = Unfinished(10 * MIB), holders(1000)
    for holder in many:
        account.keeps(holder, 2 * MIB, 2 * MIB)
        assert account.size <= 10 * MIB
    assert evicted(many) == [*range(995)]


def test_a_slow_upload_outlasts_many_that_stopped() -> None:
    """In each second 10 MiB of connections that stop, and 8 KiB of the upload."""
    account, slow = Unfinished(10 * MIB), Holder()
    for size in range(8192, 2 * MIB, 8192):
        assert account.keeps(slow, size, 8192)
        for attacker in holders(4):
            account.keeps(attacker, 2 * MIB - 1, 2 * MIB - 1)
    assert not slow.evicted


def test_a_slow_upload_outlasts_many_that_send_a_byte_now_and_then() -> None:
    account, slow = Unfinished(10 * MIB), Holder()
    attackers: list[Holder] = []
    for size in range(8192, 2 * MIB, 8192):
        account.keeps(slow, size, 8192)
        attackers = [attacker for attacker in attackers if not attacker.evicted] + holders(1)
        for attacker in attackers:
            account.keeps(attacker, MIB, 1)
    assert not slow.evicted


def test_bytes_that_come_in_small_pieces_are_progress_too() -> None:
    account, (slow, stopped, newcomer) = Unfinished(2 * MIB), holders(3)
    account.keeps(slow, MIB // 2, 0)
    account.keeps(stopped, MIB, 0)
    for size in range(STEP_BYTES):
        account.keeps(slow, MIB // 2 + size, 1)
    account.keeps(newcomer, MIB, MIB)
    assert (slow.evicted, stopped.evicted, newcomer.evicted) == (False, True, False)


def test_packet_after_packet_is_progress_though_each_leaves_as_much_over() -> None:
    account, (busy, stopped, newcomer) = Unfinished(2 * MIB), holders(3)
    account.keeps(busy, MIB, MIB)
    account.keeps(stopped, MIB // 2, MIB)
    account.keeps(busy, MIB, 2 * MIB)
    account.keeps(newcomer, MIB, MIB)
    assert (busy.evicted, stopped.evicted, newcomer.evicted) == (False, True, False)


def test_the_last_one_may_exceed_the_bound() -> None:
    account, (one, other) = Unfinished(MIB), holders(2)
    assert account.keeps(one, 2 * MIB, 2 * MIB)
    account.keeps(other, MIB, MIB)
    assert (one.evicted, other.evicted) == (True, False)
    assert account.size == MIB


def test_little_is_not_counted() -> None:
    account, (one,) = Unfinished(MIB), holders(1)
    assert not account.keeps(one, STEP_BYTES - 1, 1)
    assert account.keeps(one, STEP_BYTES, 1)
    assert account.size == STEP_BYTES
    assert not account.keeps(one, 0, 1)
    assert account.size == 0


def test_who_is_not_read_is_passed_over_unless_many_are() -> None:
    account, many = Unfinished(MIB), holders(PASSED_OVER_MAX + 2)
    size = MIB // (PASSED_OVER_MAX + 1)
    for holder in many[:-1]:
        holder.is_held_back = True
        account.keeps(holder, size, size)
    many[2].is_held_back = False
    account.keeps(many[-1], size, size)
    assert evicted(many) == [2]
    many[2] = Holder()
    account.keeps(many[2], size, size)
    assert evicted(many) == [0]
