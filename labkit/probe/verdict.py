"""The verdict on a stall: from what was measured, look by look, to its cause and its line.

Every look stands for the time since the one before, which is divided by what is proved: the
machine's (the process was stopped, or waited for a processor), computing (the loop's thread had CPU
time), and the rest. If the interpreter was free in the rest, the loop was blocked; if a thread
provably kept it from the loop, it was starved; else "unknown". The largest share decides.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from labkit.probe.frames import Frame, Stack, is_users, users_frame
from labkit.probe.meters import Measured
from labkit.probe.stall import Cause, Part, Stall

_MATTERS = 0.25  # of a stall: what took that much is told, too
_ENTRIES = 200  # different looks kept of one stall; the shortest give way
_STARVED = "starved by another thread"
_MACHINE = "machine"  # a share that is nobody's fault


class Suspect(NamedTuple):
    """A thread that had CPU time while the interpreter was kept."""

    thread: str
    cpu: float | None  # s; None where the system does not tell
    proved: bool  # it moved on, or stands where only who must let go of the interpreter stands
    stack: Stack
    sent_from: Frame | None  # the user's line that sent it its work


class Place(NamedTuple):
    """Where a share of the time was spent."""

    stack: Stack
    task: str | None
    thread: str | None
    awaited_at: Frame | None


NOWHERE = Place((), None, None, None)
Shares = defaultdict[tuple[str, Place], float]  # seconds, by kind and place


class Collection(NamedTuple):
    """One garbage collection: when, how long (s), on whose thread, from which line."""

    began: float
    took: float
    thread: str | None  # None: the loop's own
    stack: Stack
    awaited_at: Frame | None


@dataclass
class Tally:
    """What the looks at one iteration add up to: seconds by cause and place."""

    since: float
    until: float  # of the last look; the time after it is still to be divided
    shares: Shares = field(default_factory=lambda: defaultdict(float))
    loop_cpu: float = 0.0  # of it, CPU time of the loop's thread
    longest: tuple[float, Place] = (0.0, NOWHERE)  # the look that stands for the most
    looks: int = 0
    origins: dict[tuple[Stack, int], Place] = field(default_factory=dict)
    clock: float = 0.0  # the loop's thread's CPU clock at `until`
    tasks: set[int] = field(default_factory=set)
    paused: bool = False  # the loop was seen not running at all, or under a debugger: not a stall

    def add(
        self,
        took: float,
        m: Measured,
        cpu: float | None,
        at: Place,
        who: Place | None,
        waits: bool,
    ) -> None:
        """Divide the time that one look stands for.

        Args:
            took: That time, in seconds.
            m: What was measured since the look before.
            cpu: Of that time, the CPU time of the loop's thread; None where nobody can tell.
            at: Where the loop's thread is now.
            who: The thread that is proved to have kept the interpreter, and where it is.
            waits: Whether the loop is in its own wait, so that no line of anybody's can be at work.
        """
        interval, share = sys.getswitchinterval(), min(1.0, took / (m.took or took or 1.0))
        machine = min(took, max(m.stopped, m.loop_queued * share))
        free = took - machine
        kept = m.kept >= min(free / 2, 0.6 * interval)
        if cpu is None:  # the best guess, put right at the end by the CPU time of the whole
            cpu = free if kept and not who and not waits else 0.0
        ran = min(free, cpu)
        rest = free - ran
        # Asleep in a call, the loop's thread would not have woken up again and again.
        asked = m.loop_runs is None or m.loop_runs * interval * share >= rest / 2
        # The system counts a wait for a processor when it is over; looks came in between.
        before = _take(self.shares, m.loop_queued - m.took, ("blocked",))
        self.shares[_MACHINE, NOWHERE] += machine + before
        self.shares["computing", at] += ran
        self.loop_cpu += ran
        if ran >= 0.75 * free and not who:
            self.shares["computing", at] += rest
        elif kept and (asked or waits):
            self.shares[_STARVED if who else "unknown", who or NOWHERE] += rest
        elif waits and not kept:
            self.shares[_MACHINE, NOWHERE] += rest
        else:
            self.shares["blocked", at] += rest
        self.longest = max(self.longest, (took, at), key=lambda pair: pair[0])
        self.until += took
        if len(self.shares) > _ENTRIES:
            for key in sorted(self.shares, key=lambda key: self.shares[key])[: _ENTRIES // 2]:
                del self.shares[key]


class Iteration(NamedTuple):
    """An iteration that was overdue, and is over. Times are in seconds."""

    since: float
    busy: float
    cpu: float  # CPU time of the loop's thread
    process: float  # CPU time of the process
    woken_late: bool  # it began when select() should have returned, and did not
    tally: Tally


def culprit(suspects: list[Suspect], kept: float, others_cpu: float) -> Place | None:
    """The thread that is proved to have kept the interpreter for that long, if one is.

    Proved is who moved on under contention, as only who gets the interpreter can; or who alone
    can have been it. Of several, the one with the most CPU time, if that is much of it.
    """
    running = [s for s in suspects if s.cpu is None or s.cpu >= 0.2 * kept]
    ran = sum(s.cpu or 0.0 for s in running) if any(s.cpu for s in running) else others_cpu
    proved = [s for s in running if s.proved] or running
    lines = {users_frame(s.stack) for s in proved}
    # Some of it can have been a thread's that has ended since.
    if (
        others_cpu < 0.5 * kept
        or ran < 0.25 * kept
        or not (len(lines) == 1 or (proved and proved[0].proved))
    ):
        return None
    worst = max(proved, key=lambda s: s.cpu or 0.0)
    return Place(worst.stack, None, worst.thread, worst.sent_from)


def judge(seen: Iteration, threshold: float, entered: float, gc: list[Collection]) -> Stall | float:
    """Decide on cause and line of an iteration that is over. Times are in seconds.

    Returns:
        The stall; or, where the process itself took less than the threshold, for how long (s) the
        machine kept it from running.
    """
    tally, busy, until = seen.tally, seen.busy, seen.since + seen.busy
    shares = defaultdict(float, tally.shares)
    _divide_the_tail(shares, seen)
    for c in gc:
        inside = min(until, c.began + c.took) - max(seen.since, c.began)
        if inside > 0:
            kind = _STARVED if c.thread else "collecting garbage"
            _take(shares, inside, (_STARVED, "unknown") if c.thread else ("computing", "unknown"))
            shares[kind, Place(c.stack, None, c.thread, c.awaited_at)] += inside
    machine = shares[_MACHINE, NOWHERE]
    if machine > busy / 2 and busy - machine < threshold:
        return machine
    totals = defaultdict[str, float](float)
    for (kind, _), seconds in shares.items():
        totals[kind] += seconds
    if totals[_STARVED] > totals["unknown"]:  # then it was that thread in those looks, too
        totals[_STARVED] += totals.pop("unknown", 0.0)
    kind = max((kind for kind in totals if kind != _MACHINE), key=lambda kind: totals[kind])
    place = _costliest(shares, kind)
    frame = users_frame(place.stack)
    return Stall(
        start_s=seen.since - entered,
        duration_ms=1e3 * busy,
        cause=cast("Cause", kind),
        frame=frame,
        stack=place.stack,
        samples=tally.looks,
        approximate=kind in ("blocked", "computing") and tally.longest[0] > busy / 2,
        tasks=len(tally.tasks),
        thread=place.thread,
        task=place.task,
        awaited_at=place.awaited_at if not is_users(frame) else None,
        also=tuple(
            Part(
                "the process was kept from running" if k == _MACHINE else k,
                1e3 * totals[k],
                users_frame(_costliest(shares, k).stack),
            )
            for k in totals
            if k != kind and totals[k] >= _MATTERS * busy
        ),
    )


def _divide_the_tail(shares: Shares, seen: Iteration) -> None:
    """The time after the last look goes on as that look found it, but for the CPU time in it."""
    tally = seen.tally
    tail = max(0.0, seen.since + seen.busy - tally.until)
    nothing = (_MACHINE if seen.woken_late else "unknown", NOWHERE)
    kind, place = max(shares, key=lambda key: shares[key], default=nothing)
    ran = max(0.0, seen.cpu - tally.loop_cpu)
    if tally.loop_cpu > max(ran, 1.5 * seen.cpu):  # guessed, and wrongly
        for key in [key for key in shares if key[0] == "computing"]:
            shares["unknown", NOWHERE] += shares.pop(key)
    if ran > 2 * tail and ran > seen.busy / 2:  # computing, with the interpreter free
        for key in [key for key in shares if key[0] == "blocked"]:
            shares["computing", key[1]] += shares.pop(key)
    if min(ran, tail) > tail / 2:
        shares["computing", place if kind in ("computing", "blocked") else NOWHERE] += tail
    else:
        shares[kind, place] += tail


def _take(shares: Shares, seconds: float, kinds: tuple[str, ...]) -> float:
    """Take so much time, or what there is, out of the shares of these kinds; say how much."""
    wanted = rest = max(0.0, seconds)
    for key in sorted(shares, key=lambda key: -shares[key]) if wanted else ():
        if key[0] in kinds:
            taken = min(rest, shares[key])
            shares[key] -= taken
            rest -= taken
    return wanted - rest


def _costliest(shares: Shares, kind: str) -> Place:
    """Where most time of a kind went: the line with the most, and its longest place."""
    lines = defaultdict[tuple[Frame | None, str | None], float](float)
    for (k, place), seconds in shares.items():
        if k == kind:
            lines[_line(place), place.thread] += seconds
    best = max(lines, key=lambda line: (line[0] is not None, lines[line]))
    mine = [p for k, p in shares if k == kind and (_line(p), p.thread) == best]
    return max(mine, key=lambda place: shares[kind, place])


def _line(place: Place) -> Frame | None:
    """The user's line, if there is any; a library's spreads its time over many of its own."""
    frame = users_frame(place.stack)
    return frame if is_users(frame) else place.awaited_at or frame
