"""What is remembered by names of clients' choice has bounds."""

from __future__ import annotations

from broker.cache import Cache


def test_it_is_bounded_in_number() -> None:
    cache: Cache[str, int] = Cache(10)
    for n in range(25):
        assert cache.keep(str(n), n, 1) == n
        assert cache[str(n)] == n
        assert len(cache) <= 10
    assert "24" in cache


def test_it_is_bounded_in_characters() -> None:
    cache: Cache[str, int] = Cache(10, 100)
    for n in range(25):
        cache.keep(f"{n:030}", n, 30)
        assert 1 <= len(cache) <= 3
    cache.keep("x" * 1000, 1, 1000)
    assert [*cache] == ["x" * 1000], "one may be larger"


def test_what_was_cleared_does_not_count() -> None:
    cache: Cache[str, int] = Cache(10, 100)
    for n in range(25):
        cache.keep(f"{n:090}", n, 90)
        cache.clear()
    cache.keep("a", 1, 1)
    cache.keep("b", 1, 1)
    assert len(cache) == 2
