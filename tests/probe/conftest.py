import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def only_its_own_garbage() -> Iterator[None]:
    """Keep the collector off what earlier tests and libraries left.

    To go over all of that takes tenths of a second: a true stall, but not the one in question.
    """
    gc.freeze()
    yield
    gc.unfreeze()
