from __future__ import annotations

import pytest

from tests.support.wire import Wire


@pytest.fixture(params=[False, True], ids=["whole", "byte by byte"])
def wire(request: pytest.FixtureRequest) -> Wire:
    return Wire(byte_by_byte=request.param)
