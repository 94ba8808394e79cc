"""What the fuzzer kept: every place in the code that it ever reached, and whatever it found."""

from __future__ import annotations

import pytest

from tests.fuzz.run import TARGETS, check_of, inputs


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_breaks_no_promise(target: str) -> None:
    check = check_of(target)
    kept = inputs(target)
    assert len(kept) > 20
    for data in kept:
        try:
            check(data)
        except BaseException as error:
            error.add_note(f"input: {data.hex()}")
            raise
