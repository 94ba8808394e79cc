"""Pages: those that changed are told once, and only to who asks."""

from __future__ import annotations

from broker.session.pages import ChangedPages


def test_a_page_has_32_packet_identifiers() -> None:
    pages = ChangedPages()
    pages.watch()
    pages.note([1, 31, 32, 65_535])
    assert pages.take() == {0, 1, 2047}
    assert pages.take() == set()


def test_nothing_is_noted_while_nobody_asks() -> None:
    pages = ChangedPages()
    pages.note([1])
    pages.watch()
    assert pages.take() == set()
    pages.note([1])
    pages.forget()
    pages.note([40])
    pages.watch()
    assert pages.take() == set()


def test_what_was_not_written_counts_as_changed_again() -> None:
    pages = ChangedPages()
    pages.add([7])
    pages.note([32])
    assert pages.take() == {1, 7}
