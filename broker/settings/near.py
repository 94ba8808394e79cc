"""Near: what somebody may have meant who mistyped a name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

NEAR_MAX = 3


def meant(setting: str, settings: Iterable[str]) -> str:
    """What to say of a setting that there is not."""
    near = difflib.get_close_matches(setting, [*settings], NEAR_MAX)
    return f"did you mean {' or '.join(near)}?" if near else "docs/reference.md has all of them"
