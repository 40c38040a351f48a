"""The probe tests itself, once a process: it must find a stall that it makes, with its line."""

from __future__ import annotations

import asyncio
import threading
from time import sleep

from labkit.errors import LabError
from labkit.probe.frames import Frame
from labkit.probe.log import Silent
from labkit.probe.stall import Stall
from labkit.probe.watch import Probe

_testing = threading.Lock()
_tested = False
THREAD = "labkit-self-test"


def _known_stall(seconds: float) -> None:
    sleep(seconds)


def self_test() -> None:
    """Inject one known stall on a loop of its own and find it, or fail loudly.

    Raises:
        LabError: It was not found.
    """
    global _tested
    if _tested or threading.current_thread().name == THREAD:
        return
    with _testing:
        found: list[Stall] = []

        def test(seconds: float) -> None:
            async def main() -> None:
                probe = Probe(threshold_ms=10)
                probe._teller = Silent()
                with probe:
                    await asyncio.sleep(0)
                    _known_stall(seconds)
                    await asyncio.sleep(0)
                    # Not after leaving, which ends every iteration, seen or not.
                    line = _known_stall.__code__.co_firstlineno + 1
                    known = Frame(__file__, line, _known_stall.__name__)
                    found.extend(stall for stall in probe.stalls if known in stall.stack)

            with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
                runner.run(main())

        for seconds in (0.025, 0.1, 0.4):  # longer ones for a machine that is busy just now
            if not _tested:
                thread = threading.Thread(target=test, args=(seconds,), name=THREAD)
                thread.start()
                thread.join()
                _tested = bool(found)
    if not _tested:
        raise LabError(
            "The probe made stalls of 25, 100 and 400 ms on a loop of its own and found none of "
            "them, so it would be blind here too. Expected: each is found, with its line. See "
            "whether something in this process replaces asyncio's event loop or its selector, "
            "and report it."
        )
