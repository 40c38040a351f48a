"""For pytest: a test that fails when something held its loop.

In `conftest.py`, or in a file of tests, `from labkit.probe.testing import no_stalls`. Then:

    async def test_the_report_leaves_the_loop_free(no_stalls):
        with no_stalls(threshold_ms=50):
            await report()

What was mostly the machine's doing (it was busy, or asleep) is no stall, and fails no such test.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from labkit.probe.stall import ADVICE
from labkit.probe.watch import Probe


@contextmanager
def _no_stalls(threshold_ms: float = 50.0) -> Iterator[Probe]:
    with Probe(threshold_ms) as probe:
        yield probe
    if found := probe.stalls:
        listed = "".join(f"\n  {stall}\n    To do: {ADVICE[stall.cause]}" for stall in found)
        raise AssertionError(f"The loop was held for {threshold_ms:g} ms or more:{listed}")


@pytest.fixture
def no_stalls() -> Callable[..., AbstractContextManager[Probe]]:
    """Enter `no_stalls(threshold_ms=50)` around what must leave the loop free; gives the probe.

    At the end, an AssertionError names each line that held the loop for so long, why, and what to
    do. An error of the block's own comes through instead.
    """
    return _no_stalls
