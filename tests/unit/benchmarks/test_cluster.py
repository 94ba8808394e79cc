"""The table tells medians, and compares brokers on a shared log with SQLite and with one broker."""

from __future__ import annotations

from benchmarks.cluster import SETUPS, Figures, table

ALONE = [Figures(100_000, 4.0, 500_000, 1.0, 20_000, 10.0)]
ONE = [
    Figures(70_000, 5.0, 300_000, 2.0, 10_000, 20.0),
    Figures(50_000, 6.0, 250_000, 0.8, 15_000, 15.0),
    Figures(60_000, 9.0, 100_000, 0.5, 12_000, 12.0),
]
THREE = [Figures(50_000, 12.0, 400_000, 0.4, 9_000, 40.0)]


def test_a_row_has_the_median_of_each_figure_and_what_it_is_to_the_others() -> None:
    alone, one, _, three = SETUPS
    rows = table([(alone, ALONE), (one, ONE), (three, THREE)]).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:5] for row in cells] == [
        [alone.name, "100,000 (1.00x)", "4.0 µs (1.0x)", "500,000 (1.00x)", "1.00 µs (1.25x)"],
        [one.name, "60,000 (0.60x)", "6.0 µs (1.5x)", "250,000 (0.50x)", "0.80 µs (1.00x)"],
        [three.name, "50,000 (0.50x)", "12.0 µs (3.0x)", "400,000 (0.80x)", "0.40 µs (0.50x)"],
    ]
    assert [row[5:] for row in cells] == [
        ["20,000 (1.00x)", "10.0 µs (1.0x)"],
        ["12,000 (0.60x)", "15.0 µs (1.5x)"],
        ["9,000 (0.45x)", "40.0 µs (4.0x)"],
    ]
