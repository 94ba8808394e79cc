"""How often a test that draws at random tries: one knob for all of them, Hypothesis's profile."""

from __future__ import annotations

from hypothesis import settings


def trials(usual: int) -> int:
    """`usual` in `make test`, fewer in `make quick`, many more in `make soak`; at least one."""
    return max(1, usual * settings().max_examples // settings.get_profile("here").max_examples)


def seeds(block: int, usual: int, *, blocks: int = 4) -> range:
    """One of some blocks of seeds, which together are `trials(usual)`."""
    each = -(-trials(usual) // blocks)
    return range(block * each, (block + 1) * each)
