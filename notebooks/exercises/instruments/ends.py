"""What becomes of a gate's places after an overload, and after works that end badly: for `gate`."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter

import asyncpg
from exercises.instruments.meanwhile import MOMENT, swallowed

from labkit.exercises import NotYet

Work = Callable[[], Awaitable[object]]
Admit = Callable[[asyncio.Semaphore, Work], Awaitable[object]]

PLACES = 5
DEADLINE_MS = 100
LONG = 2  # s; a work's duration


class MishapError(LookupError, ArithmeticError, RuntimeError):
    """Of many kinds, of which an answer may believe that it knows better."""


class Ends:
    """Lets works end in every way there is, and counts the places afterwards.

    Attributes:
        fault: What is wrong, in a sentence; "" if nothing is.
        alone_ms: How long it took until a work began that was alone in the gate; the least of
            three times.
    """

    def __init__(self, answer: Admit) -> None:
        self._answer = answer
        self.fault = ""
        self.alone_ms = math.inf

    async def look(self, overloaded: asyncio.Semaphore) -> None:
        """Look at the gate of the overload, when that is over; then at one of its own."""
        await asyncio.sleep(DEADLINE_MS / 1e3)  # what was cancelled has ended by then
        if (free := await _take_all(overloaded)) != PLACES:
            self.fault = (
                f"the overload was over, and {free} of {PLACES} places were free. Something of "
                f"yours goes on waiting for those who were refused, and takes places for nobody."
            )
        else:
            self.fault = await self._after_bad_ends() or self.fault

    async def look_at_a_long_work(self) -> None:
        """Let a work take long, in a gate of its own; this may go on beside all the others."""
        work = partial(asyncio.sleep, LONG, done := object())
        if (got := await self._end(asyncio.Semaphore(PLACES), work)) is not done:
            self.fault = self.fault or (
                f"a work of {LONG} s, alone in a gate, ends well, and your function made {got!r} "
                f"of it. How long a work takes is not yours to change."
            )

    async def _end(self, gate: asyncio.Semaphore, work: Work) -> object:
        """What came back from a call of the answer, or was raised."""
        try:
            return await self._answer(gate, work)
        except NotYet:  # it never ends
            raise
        except Exception as error:
            return error

    async def _after_bad_ends(self) -> str:
        """Let works fail, be slow and be cancelled; then count. What is wrong, or ""."""
        gate = asyncio.Semaphore(PLACES)
        called = 0.0
        begun = inside = 0  # slow works
        failed = 0  # works that raise

        def begin() -> None:
            self.alone_ms = min(self.alone_ms, 1e3 * (perf_counter() - called))

        async def slow() -> str:
            nonlocal begun, inside
            begin()
            begun, inside = begun + 1, inside + 1
            try:
                await asyncio.sleep(3 * DEADLINE_MS / 1e3)
            finally:
                inside -= 1
            return ""  # an answer, though it is false

        async def fail(error: Exception) -> None:
            nonlocal failed
            begin()
            failed += 1
            await asyncio.sleep(0)
            raise error

        errors: tuple[Exception, ...] = (
            ValueError("no such customer"),
            TimeoutError("the query took too long"),
            MishapError("nobody foresaw it"),
            asyncpg.DeadlockDetectedError("deadlock detected"),
        )
        for error in errors:  # fewer than there are places, which an answer may lose
            called = perf_counter()
            got = await self._end(gate, partial(fail, error))
            if got is not error:
                return (
                    f"a work raised {error!r}, and your function made {got!r} of it. A work's own "
                    f"errors are to pass through."
                )
        if failed != len(errors):
            return (
                f"four works raised an error, and your function began {failed}: what a work has "
                f"done before it fails, another one does again."
            )
        called = perf_counter()
        if (got := await self._end(gate, slow)) != "":
            return (
                f"a work of {3 * DEADLINE_MS} ms, alone in the gate, returned '', and your "
                f"function made {got!r} of it."
            )
        call = asyncio.ensure_future(self._answer(gate, slow))
        if fault := await _go_away(call, "a caller went away during its work"):
            return fault
        if (free := await _take_all(gate)) != PLACES:
            return (
                f"six works have ended (four with an error, one was slow, one was cancelled), and "
                f"{free} of {PLACES} places are free. Whatever happens, each place taken is given "
                f"back, once."
            )
        if inside:  # and it is not among the five that could be taken
            return (
                "a caller went away during its work; the work still ran, and its place was already "
                "free. So more works run than there are places: a work that goes on keeps its "
                "place until it ends."
            )
        begun = 0
        call = asyncio.ensure_future(self._answer(gate, slow))  # no place is free
        if fault := await _go_away(call, "a caller went away while it waited for a place"):
            return fault
        if begun:
            return (
                "with no place free in `gate`, a work began. Others may hold its places, too: take "
                "one of `gate`, and not of a gate of your own."
            )
        for _ in range(PLACES):
            gate.release()
        await asyncio.sleep(2 * DEADLINE_MS / 1e3)
        if (free := await _take_all(gate)) != PLACES:
            return (
                f"a caller went away while it waited for a place, and afterwards {free} of "
                f"{PLACES} places are free: something of yours went on waiting, and took one for "
                f"nobody."
            )
        return ""


async def _go_away(call: asyncio.Future[object], when: str) -> str:
    """Cancel a call of the answer in the middle. What is wrong with its end, or ""."""
    await asyncio.sleep(DEADLINE_MS / 1e3 / 2)
    if not call.cancel():  # a late machine: it was over
        return ""
    await asyncio.wait([call])
    return swallowed(call, when)


async def _take_all(gate: asyncio.Semaphore) -> int:
    """Take the places of a gate, also those that come back in a moment. Returns how many."""
    free = 0
    for _ in range(int(MOMENT / 0.02)):  # turns, and not time: as in `a_moment_until`
        while not gate.locked():
            await gate.acquire()
            free += 1
        if free >= PLACES:
            break
        await asyncio.sleep(0.02)  # a work that was shielded still runs, and keeps its place
    return free
