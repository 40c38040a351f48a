"""The verdict on a stall: from what was measured, look by look, to its cause and its line.

Every look stands for the time since the one before, which is divided by what is proved: computing
(the loop's thread had CPU time), the machine's (the process was stopped, or waited for a
processor), and the rest. If the interpreter was free in the rest, the loop was blocked; if a thread
provably kept it from the loop, it was starved; else "unknown". The largest share decides.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from labkit.probe.frames import Frame, is_users, users_frame
from labkit.probe.meters import Measured
from labkit.probe.origin import Place
from labkit.probe.stall import Cause, Part, Stall

_MATTERS = 0.25  # of a stall: what took that much is said, too
_STARVED = "starved by another thread"
_MACHINE = "the process was kept from running"  # a share that is nobody's fault

Shares = defaultdict[tuple[str, Place], float]  # seconds, by cause and place


class Collection(NamedTuple):
    """One garbage collection. Times are in seconds."""

    began: float
    took: float
    place: Place


@dataclass(eq=False)
class Tally:
    """What the looks at one iteration add up to. Times are in seconds."""

    since: float  # its beginning
    clock: float = 0.0  # the CPU clock of the loop's thread at `until`
    shares: Shares = field(default_factory=lambda: defaultdict(float))
    loop_cpu: float = 0.0  # of the time so far, CPU time of the loop's thread
    queued: float = 0.0  # of it, that thread was ready and no processor was free
    place: Place | None = None  # where the last look found the loop
    looks: int = 0
    longest: float = 0.0  # what the latest of the looks stands for
    tasks: set[int] = field(default_factory=set)
    paused: bool = False  # the loop does not run at all, or under a debugger: this is no stall

    def __post_init__(self) -> None:
        self.until = self.since  # the time after it is still to be divided

    def add(
        self, until: float, m: Measured, cpu: float, who: Place | None, waits: bool = False
    ) -> None:
        """Divide the time up to a moment by cause.

        Args:
            until: That moment.
            m: What was measured since the look before.
            cpu: The CPU time of the loop's thread; 0 where nobody can tell.
            who: Where the thread is that is proved to have kept the interpreter.
            waits: Whether the loop is in its own wait, so that no line of anybody's is at work.
        """
        took, place = max(0.0, until - self.until), self.place or Place()
        ran = min(took, cpu)
        stopped = min(took - ran, m.stopped)
        rest = took - ran - stopped
        interval = sys.getswitchinterval()
        # Asleep in a call, the loop's thread would not have woken up to ask for the interpreter.
        asked = waits or m.loop_runs is None or m.loop_runs * interval >= rest / 2
        if asked and m.kept >= min(rest / 2, 0.6 * interval):
            cause = _STARVED if who else "unknown"
        elif waits:
            cause = _MACHINE  # it should have come back, and nobody kept it
        else:
            cause = "blocked" if self.place else "unknown"
        self.shares["computing", place] += ran
        self.shares[_MACHINE, Place()] += stopped
        self.shares[cause, who if who and cause == _STARVED else place] += rest
        self.queued += min(took, max(0.0, m.loop_queued - stopped))
        self.loop_cpu += ran
        self.longest = max(self.longest, took)
        self.until = max(until, self.until)


class Iteration(NamedTuple):
    """An iteration that took longer than the threshold. Times are in seconds."""

    since: float
    busy: float
    cpu: float  # CPU time of the loop's thread
    woken_late: bool  # it began when select() should have returned, and did not
    tally: Tally

    @property
    def end(self) -> float:
        """When it was over."""
        return self.since + self.busy


def judge(seen: Iteration, threshold: float, entered: float, gc: list[Collection]) -> Stall | float:
    """Decide on cause and line of an iteration. Times are in seconds.

    Returns:
        The stall; or, where the process itself took less than the threshold, for how long (s) the
        machine kept it from running.
    """
    tally, busy = seen.tally, seen.busy
    shares: Shares = defaultdict(float, tally.shares)
    undivided = _MACHINE if seen.woken_late else "unknown"  # where there is no sampler any more
    shares[undivided, Place()] += max(0.0, seen.end - tally.until)
    # On macOS and Windows, only now is known for how long the loop's thread ran.
    _move(shares, seen.cpu - tally.loop_cpu, ("blocked", "unknown"), "computing")
    # The system counts a wait for a processor when it is over, so looks can have come in between.
    _move(shares, tally.queued, ("blocked", _STARVED, "unknown"), _MACHINE, Place())
    for began, took, place in gc:
        inside = min(seen.end, began + took) - max(seen.since, began)
        if place.thread:
            _move(shares, inside, (_STARVED, "unknown"), _STARVED, place)
        else:
            _move(shares, inside, ("computing", "unknown"), "collecting garbage", place)
    machine = shares[_MACHINE, Place()]
    if machine > busy / 2 and busy - machine < threshold:
        return machine
    totals = defaultdict[str, float](float)
    for (cause, _), seconds in shares.items():
        totals[cause] += seconds
    if totals[_STARVED] > totals["unknown"]:  # then it was that thread in those looks, too
        totals[_STARVED] += totals.pop("unknown", 0.0)
    cause = max((cause for cause in totals if cause != _MACHINE), key=lambda cause: totals[cause])
    place = _costliest(shares, cause)
    frame = users_frame(place.stack)
    return Stall(
        start_s=seen.since - entered,
        duration_ms=1e3 * busy,
        cause=cast("Cause", cause),
        frame=frame,
        stack=place.stack,
        samples=tally.looks,
        approximate=cause in ("blocked", "computing") and tally.longest > busy / 2,
        tasks=len(tally.tasks),
        thread=place.thread,
        task=place.task,
        awaited_at=None if is_users(frame) else place.awaited_at,
        also=tuple(
            Part(other, 1e3 * totals[other], users_frame(_costliest(shares, other).stack))
            for other in totals
            if other != cause and totals[other] >= _MATTERS * busy
        ),
    )


def _move(
    shares: Shares,
    seconds: float,
    causes: tuple[str, ...],
    to: str,
    place: Place | None = None,
) -> None:
    """Move so much time, or what there is, from the largest shares of these causes to another's.

    Its place is the given one; without one, it stays where it was.
    """
    for cause, at in sorted(shares, key=lambda key: -shares[key]):
        moved = min(seconds, shares[cause, at])
        if cause in causes and moved > 0:
            seconds -= moved
            shares[cause, at] -= moved
            shares[to, at if place is None else place] += moved


def _costliest(shares: Shares, cause: str) -> Place:
    """Where most time of a cause went: the line with the most, and its longest place."""
    if cause == "unknown":  # whoever was there is not to blame
        return Place()
    lines = defaultdict[tuple[Frame | None, str | None], float](float)
    for (other, place), seconds in shares.items():
        if other == cause:
            lines[place.line, place.thread] += seconds
    best = max(lines, key=lambda line: (line[0] is not None, lines[line]))
    mine = [p for c, p in shares if c == cause and (p.line, p.thread) == best]
    return max(mine, key=lambda place: shares[cause, place])
