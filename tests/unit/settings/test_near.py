"""What somebody may have meant who mistyped a setting."""

from __future__ import annotations

from broker.settings.near import meant

SETTINGS = ["host", "port", "data_dir", "retention"]


def test_settings_that_are_like_it_are_named() -> None:
    assert meant("prot", SETTINGS) == "did you mean port?"
    assert meant("dis", ["dirs", "disk"]) == "did you mean disk or dirs?"


def test_where_none_is_like_it_the_page_that_has_all_is_named() -> None:
    assert meant("xyzzy", SETTINGS) == "docs/reference.md has all of them"
