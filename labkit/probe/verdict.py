"""The verdict on a stall: from what was measured, look by look, to its cause and its line.

Every look stands for the time since the one before, which is divided by what is proved: collecting
garbage; computing (the loop's thread had CPU time); the machine's (the process was stopped, or
waited for a processor); and the rest. If the interpreter was free in the rest, the loop was
blocked; if a thread provably kept it from the loop, it was starved; else, as while some thread may
have slept with it, "unknown". The largest share decides.
"""

import os
import sys
from collections import defaultdict
from dataclasses import dataclass, field

from labkit.probe.meters import Measured
from labkit.probe.origin import Place, Where
from labkit.probe.stall import MACHINE, OWN_THREADS, Part, Stall

_MATTERS = 0.25  # of a stall: what took that much is said, too
_SOON = 0.001  # s; code in Python lets go of the interpreter so soon after it is made to
_SHORTEST = 0.001  # s; the loop waits no shorter while a thread keeps the interpreter
_STARVED = "starved by another thread"


@dataclass(eq=False)
class Iteration:
    """One iteration of the loop, and what the looks at it add up to. Times are in seconds."""

    since: float  # when it began, or should have begun
    clock: float = 0.0  # the CPU clock of the loop's thread at the last look
    woken: float = 0.0  # when select() returned, if it should have done so at `since`; else 0
    end: float = 0.0  # when it was over, if it is
    busy: float = 0.0  # how long it then took
    cpu: float = 0.0  # and how much CPU time the loop's thread had in it
    place: Place | None = None  # where the last look found the loop
    waited: str = ""  # for what, at the last look; see Measured.loop_waits
    asks: bool = False  # there, it had been made to let go of the interpreter
    other_lines: tuple[bool, bool] = (False, False)  # before, it was at; see after_other_lines
    collector_calls: bool = False  # code in Python, which is not its own work
    looks: int = 0
    tasks: dict[Where, set[int]] = field(default_factory=lambda: defaultdict(set))
    paused: bool = False  # the loop does not run at all, or under a debugger: this is no stall
    # The time by cause and place; of a line, the most that one look stands for, and the time of
    # looks that came only when an operation in C was over.
    shares: dict[tuple[str, Place], float] = field(default_factory=lambda: defaultdict(float))
    longest: dict[Where, float] = field(default_factory=lambda: defaultdict(float))
    after_c: dict[Where, float] = field(default_factory=lambda: defaultdict(float))
    seen_cpu: float = 0.0  # of `cpu`, what is in the shares
    queued: float = 0.0  # for how long it waited for a processor, and the shares do not say so
    divided: float = 0.0  # how much of it, from its beginning on, is in the shares

    def add(
        self, until: float, m: Measured, cpu: float, who: Place | None, waits: bool = False
    ) -> None:
        """Divide the time up to a moment, by what was measured since the look before.

        `cpu` is the CPU time of the loop's thread (0 where nobody can tell), `who` the thread that
        is proved to have kept the interpreter. If the loop `waits`, nobody's line is at work.
        """
        took, place = max(0.0, until - self.since - self.divided), self.place or Place()
        part, interval = min(1.0, took / (m.took or 1.0)), sys.getswitchinterval()
        most = cpu if cpu or m.loop_cpu is not None else took
        # Not the wait for the interpreter after it.
        garbage = 0.0 if self.collector_calls else min(took, m.garbage, most)
        ran = min(took - garbage, max(0.0, cpu - garbage))
        rest = took - garbage - ran
        # Asleep in a call, the loop's thread would not have woken up to ask for the interpreter.
        told = m.loop_runs is not None  # elsewhere than on Linux, its place may tell
        asks = (m.loop_runs or 0) * interval
        asked = asks >= rest / 2 or (self.asks and not told)
        # The loop may have woken up after the end, too: to ask, or for waits of a millisecond.
        after, sleeps = max(0.0, m.at - until), self.waited == "other"
        often = 1 if after <= 2 * interval and not sleeps else interval / _SHORTEST
        perhaps = asked and told and asks - often * after < rest / 2
        # Elsewhere each packet, or each short sleep, may have woken it up as often: so what it was
        # seen to wait for decides, at both ends of this time, if it was not the same.
        seen = {self.waited, "" if self.end else m.loop_waits} - {""}
        self.waited = m.loop_waits
        # One glance does not tell of a long time in which nobody could look.
        glance = asked and m.kept > 2 * interval
        asked = waits or (asked and (self.end > 0 or "other" not in seen))
        own = m.others > m.took * (os.cpu_count() or 1) / 2  # its threads had most processors
        queued, stopped = m.loop_queued * part, min(m.stopped, max(0.0, until - m.at + m.late))
        crowded = min(rest, queued) if own else 0.0
        rest -= crowded
        late = 0.0 if own else queued  # while it asks, it can wait for both at the same time
        machine = min(rest, max(stopped, late) if asked else stopped + late)
        rest -= machine
        slept = min(rest, max(0.0, m.idle * part - queued))  # with the interpreter, some thread
        rest -= slept
        # What lets go by itself before it is made to, as each write does, is always seen there.
        unsure = m.may_be_after(self.other_lines) or (not self.asks and m.late < 0.9 * interval)
        if (m.asked and unsure) or (told and m.kept > interval + _SOON):
            alone = not asked and m.others < m.kept / 2  # then it kept the interpreter itself
            self.after_c[place.where] += ran + (rest if alone else 0.0)
        kept, cause, at = m.kept >= min(rest / 2, 0.6 * interval), "unknown", place
        # The stop may have begun earlier: then, nobody knows how much of the wait was its doing.
        unclear = (not who and stopped > m.kept / 2) if waits else perhaps or stopped > 2 * rest
        asleep = 0.0
        if asked and told and not waits and self.shares.get(("blocked", place)):
            asleep = rest - asks if asks < 0.75 * rest else 0.0  # still there, until it asked
            rest -= asleep
        if asked and kept and not unclear:
            # Whichever line it came to there is not to blame. By CPU time, as it is counted.
            if m.elsewhere * part > min(rest, m.kept * part) / 2 and not m.finalizes:
                cause, at = "collecting garbage", who or Place()
            elif who:
                cause, at = _STARVED, who
                self.after_c[at.where] += rest * m.who_unsure
        elif waits:  # no thread kept the loop: the machine did
            machine, rest = machine + rest, 0.0
        # Without a Python frame there is no sign of a call that waits: it may wait its turn.
        elif self.place and (told or not kept) and (place.stack or not own) and not unclear:
            sure = "interpreter" not in seen and not (glance and "other" in seen)
            cause = "blocked" if sure else "unknown"
        booked = defaultdict[Where, float](float)
        for what, of, seconds in (
            (cause, at, rest),
            ("blocked", place, asleep),
            ("unknown", place, slept),
            ("collecting garbage", place, garbage),
            ("computing", place, ran),
            (MACHINE, Place(), machine),
            (OWN_THREADS, Place(), crowded),
        ):
            self.shares[what, of] += seconds
            booked[of.where] += seconds
        for where, seconds in booked.items():
            self.longest[where] = max(self.longest[where], seconds)
        self.queued += max(0.0, min(late, until - self.since) - machine)
        self.seen_cpu += min(took, cpu)
        self.divided += took


def judge(seen: Iteration, threshold: float, entered: float) -> Stall | float:
    """Decide on cause and line of an iteration. Times are in seconds.

    If it was mostly the machine's, and the process itself took less than the threshold, it is no
    stall: then this returns for how long the machine kept it from running.
    """
    busy = seen.busy or seen.divided  # it goes on
    # The last look can have come after the end.
    fits = min(1.0, busy / max(1e-9, seen.divided))
    shares = {share: fits * seconds for share, seconds in seen.shares.items()}
    totals = defaultdict[str, float](float)
    for (cause, _), seconds in shares.items():
        totals[cause] += seconds
    undivided = max(0.0, busy - seen.divided)  # as where there is no sampler any more
    totals[MACHINE if seen.woken else "unknown"] += undivided

    def move(seconds: float, causes: tuple[str, ...], to: str) -> None:
        for cause in causes:
            moved = max(0.0, min(seconds, totals[cause]))
            totals[cause] -= moved
            totals[to] += moved
            seconds -= moved

    # On macOS and Windows, only now is known for how long the loop's thread ran.
    move(seen.cpu - seen.seen_cpu, ("blocked", "unknown", _STARVED), "computing")
    # The system counts a wait for a processor when it is over: looks can have come before that.
    move(seen.queued, ("blocked", _STARVED, "unknown"), MACHINE)
    machine = totals[MACHINE]
    if machine > busy / 2 and busy - machine < threshold:
        return machine
    crowded = totals[OWN_THREADS]
    causes = [cause for cause in totals if cause not in (MACHINE, OWN_THREADS)]
    cause = max(causes, key=totals.__getitem__)
    if crowded > busy / 2 and totals[cause] < threshold:  # by itself it would be no stall
        cause = "unknown"
    place = _costliest(shares, cause)
    there = [(of, at.task, s) for (of, at), s in shares.items() if at.where == place.where]
    found, blocked = sum(s for *_, s in there), sum(s for of, _, s in there if of == "blocked")
    most = 0.75 if len(seen.tasks[place.where]) > 1 else 0.5
    if sum(s for _, task, s in there if task == place.task) < most * found:
        place = place._replace(task=None)  # many did it

    def came_late(place: Place, seconds: float) -> bool:
        """Whether one look, or those after C, stand for most of it: it may be another line's."""
        return fits * max(seen.longest[place.where], seen.after_c[place.where]) > seconds / 2

    late = came_late(place, found)
    late |= cause != "blocked" and blocked > 0.1 * busy
    return Stall(
        start_s=seen.since - entered,
        duration_ms=1e3 * busy,
        cause=cause,
        frame=place.frame,
        samples=seen.looks,
        approximate=cause != "unknown" and late,
        share=min(1.0, found / max(1e-9, busy - machine - crowded)),
        tasks=len(seen.tasks[place.where]),
        also=tuple(
            Part(other, 1e3 * seconds, at.frame, came_late(at, seconds))
            for other, seconds in totals.items()
            if other != cause and seconds >= _MATTERS * busy
            for at in [_costliest(shares, other)]
        ),
        **place._asdict(),
    )


def _costliest(shares: dict[tuple[str, Place], float], cause: str) -> Place:
    """Where most time of a cause went: the line with the most, and its longest place."""
    if cause in ("unknown", MACHINE, OWN_THREADS):  # whoever was there is not to blame
        return Place()
    places = {place: s for (other, place), s in shares.items() if other == cause and s > 0}
    places = places or {place: seconds for (_, place), seconds in shares.items()}  # it was moved
    lines = defaultdict[Where, float](float)
    for place, seconds in places.items():
        lines[place.where] += seconds
    cost = {p: (p.line is not None, lines[p.where], places[p]) for p in places}
    return max(cost, key=cost.__getitem__, default=Place())
