"""Text in terminal cells."""

from __future__ import annotations

import pytest

from cli.terminal.cells import cut, cut_middle, padded, width


@pytest.mark.parametrize(
    ("text", "cells"),
    [("", 0), ("abc", 3), ("天気", 4), ("e\u0301te\u0301", 3), ("é", 1), ("🌊", 2)],
)
def test_how_wide_a_text_is(text: str, cells: int) -> None:
    assert width(text) == cells


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("Rainy", 5, "Rainy"),
        ("Rainy day", 5, "Rain…"),
        ("天気予報", 8, "天気予報"),
        ("天気予報", 6, "天気…"),
        ("天気予報", 5, "天気…"),
        ("e\u0301te\u0301s", 3, "e\u0301t…"),
        ("Rainy", 1, "…"),
        ("Rainy", 0, ""),
    ],
)
def test_a_text_is_cut_at_its_end(text: str, cells: int, shown: str) -> None:
    assert cut(text, cells) == shown


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("pubsub-pub-c45b19ff0626", 12, "pubsub…f0626"),
        ("pub1", 12, "pub1"),
        ("部屋/天気/温度", 9, "部屋…温度"),
        ("部屋/天気/温度", 8, "部屋…度"),
        ("aaaaae\u0301\u0301x", 3, "a…x"),
        ("aaaaaxe\u0301", 3, "a…e\u0301"),
        ("abc", 2, "a…"),
    ],
)
def test_a_name_is_cut_in_the_middle(text: str, cells: int, shown: str) -> None:
    assert cut_middle(text, cells) == shown
    assert width(cut_middle(text, cells)) <= cells


def test_a_text_is_padded_to_a_width_in_cells() -> None:
    assert padded("天気", 6) == "天気  "
    assert padded("7", 3, right=True) == "  7"
    assert padded("1234", 3) == "1234"
