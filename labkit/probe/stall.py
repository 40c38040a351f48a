"""What a stall is, and the verdict on one: from the probe's evidence to a cause and a line."""

from __future__ import annotations

import gc
import linecache
import os
import sys
import sysconfig
import threading
from collections import Counter
from dataclasses import dataclass
from types import FrameType
from typing import Literal, NamedTuple

Cause = Literal["blocked", "computing", "collecting garbage", "starved by another thread"]

_LIBRARY = tuple({sysconfig.get_path(p) for p in ("stdlib", "platstdlib", "purelib", "platlib")})
_LABKIT = os.path.dirname(os.path.dirname(__file__))
_NOT_THE_USERS = (*_LIBRARY, _LABKIT, "<frozen")
# A thread whose innermost frame is in one of the library's files of these names waits for
# something, and hogs nothing.
_WAITING = {"threading.py", "selectors.py", "queue.py", "socket.py", "thread.py"}
_LOOPS = {("runners.py", "run"), ("base_events.py", "run_forever")}  # who runs a loop
# Of a stall's time, the CPU time from which on the loop's thread was computing, or another thread
# was running. Far below all of it: on a busy machine even who only computes gets but a share.
_COMPUTING, _STARVING = 0.15, 0.3


class Frame(NamedTuple):
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Without directories: they say more about a machine than about a bug."""
        return f"{_label(self.file)}:{self.line} in {self.function}"


Stack = tuple[Frame, ...]  # outermost first


@dataclass(frozen=True, slots=True)
class Stall:
    """One iteration of the loop that took longer than the threshold.

    Attributes:
        start_s: When it began, in seconds since the probe was entered.
        duration_ms: How long the loop was busy, in milliseconds.
        cause: "blocked" (the loop's thread waited), "computing" (it ran), "collecting garbage",
            or "starved by another thread" (it wanted to run and was not let).
        frame: The innermost frame of the user's code, neither standard library nor
            site-packages: on the loop's thread, or on `thread`. None if nothing was seen.
        stack: The whole stack around it, outermost first.
        samples: How many looks found the loop in this stall.
        approximate: The looks came late, as when C code holds the interpreter: the frame is
            where that call returned.
        tasks: In how many different tasks the looks found the loop; many are a crowd.
        thread: The name of the thread that starved the loop, else None.
    """

    start_s: float
    duration_ms: float
    cause: Cause
    frame: Frame | None
    stack: Stack
    samples: int
    approximate: bool
    tasks: int
    thread: str | None

    @property
    def file(self) -> str | None:
        """The path of the file that holds the frame."""
        return self.frame.file if self.frame else None

    @property
    def line(self) -> int | None:
        """The frame's line number."""
        return self.frame.line if self.frame else None

    @property
    def function(self) -> str | None:
        """The frame's function."""
        return self.frame.function if self.frame else None

    @property
    def source(self) -> str:
        """The text of the line, or ""."""
        return linecache.getline(*self.frame[:2]).strip() if self.frame else ""

    def __str__(self) -> str:
        """For people and for logs."""
        where = f"{self.frame}: {self.source}" if self.frame else "a line that no look found"
        by = f" ({self.thread})" if self.thread else ""
        return f"{self.duration_ms:.0f} ms, {self.cause}{by}, at {where}"


class Look(NamedTuple):
    """The loop's thread, as the sampler found it in an overdue iteration."""

    iteration: float  # when that iteration began
    age: float  # s; how old it was
    stack: Stack
    instruction: int
    task: str | None


class Seen(NamedTuple):
    """Another thread, as the sampler found it."""

    thread: str
    stack: Stack
    instruction: int


class LateLook(NamedTuple):
    """All the other threads, when something had kept the sampler itself from running."""

    due: float
    at: float
    threads: dict[int, Seen]


class Collection(NamedTuple):
    """One garbage collection: when, how long (s), on whose thread, from which line."""

    began: float
    took: float
    thread: str | None  # None: the loop's own
    stack: Stack


class Evidence(NamedTuple):
    """All that is known of one overdue iteration. Times are in seconds."""

    since: float
    busy: float
    woken_late: bool  # it began when select() should have returned, and did not
    cpu: float  # CPU time of the loop's thread
    other_cpu: float  # CPU time of all the other threads of the process
    looks: list[Look]


def judge(
    seen: Evidence,
    entered: float,
    late: list[LateLook],
    calm: dict[int, Seen],
    collections: list[Collection],
) -> Stall | None:
    """Decide on cause and line, or find that the machine, and not this process, was late.

    Args:
        seen: The overdue iteration.
        entered: When the probe was entered, which is second 0.
        late: Looks at the other threads, of any time.
        calm: Where the other threads were while nothing kept the sampler: they wait there.
        collections: Garbage collections, of any time.

    Returns:
        The stall. None if the loop was due, and neither it nor any other thread of the process
        ran: the operating system let something else run.
    """
    since, until, busy = seen.since, seen.since + seen.busy, seen.busy
    looks = [look for look in seen.looks if look.iteration == since]
    stacks = [look.stack for look in looks]
    # A starved loop gets on a little between two looks; a blocked one stays where it is.
    stuck = len(looks) > 2 and len({(look.stack, look.instruction) for look in looks}) == 1
    # A select() that does not wait can be kept from returning too: every look then finds it.
    kept = seen.woken_late or (bool(stacks) and all(map(_in_select, stacks)))
    inside = [c for c in collections if since - c.took < c.began < until]
    cause: Cause = "blocked"
    thread = None
    if sum(c.took for c in inside) > busy / 2:
        longest = max(inside, key=lambda c: c.took)
        thread, stacks = longest.thread, [longest.stack]
        cause = "starved by another thread" if thread else "collecting garbage"
    elif seen.cpu > max(_COMPUTING * busy, seen.other_cpu):
        cause = "computing"
    elif seen.other_cpu > _STARVING * busy and (kept or not stuck):
        cause = "starved by another thread"
        culprit = _busiest([x for x in late if x.due < until and x.at > since], calm)
        if culprit:
            thread, stacks = culprit[0].thread, [found.stack for found in culprit]
    elif kept:
        return None
    named = Counter(frame for stack in stacks if (frame := users_frame(stack)))
    frame = named.most_common(1)[0][0] if named else None
    overdue = looks[0].age > busy / 2 if looks else True
    return Stall(
        start_s=since - entered,
        duration_ms=1e3 * busy,
        cause=cause,
        frame=frame,
        stack=next((s for s in stacks if users_frame(s) == frame), ()),
        samples=len(looks),
        approximate=overdue and cause in ("blocked", "computing"),
        tasks=len({look.task for look in looks if look.task}),
        thread=thread,
    )


_walking = threading.RLock()


def walk(frame: FrameType | None) -> Stack:
    """A frame and its callers, outermost first."""
    frames = []
    # In Python 3.11 `f_back` makes an object. That may start a collection, in which the thread that
    # is looked at may run on: its frames are then gone, and the interpreter crashes.
    with _walking:  # for else the first of two to end would switch it on again
        collecting = sys.version_info < (3, 12) and gc.isenabled()
        if collecting:
            gc.disable()
        try:
            while frame is not None:
                code = frame.f_code
                frames.append(Frame(code.co_filename, frame.f_lineno or 0, code.co_name))
                frame = frame.f_back
        finally:
            if collecting:
                gc.enable()
    return tuple(reversed(frames))


def users_frame(stack: Stack) -> Frame | None:
    """The innermost frame that is the user's own; else, the innermost that is not labkit's.

    What called the loop is not looked at: `asyncio.run(main())` is no line that holds it.
    """
    called = (i for i, frame in enumerate(stack) if _is_library(frame.file) and _runs(frame))
    stack = stack[next(called, -1) + 1 :]
    others = [frame for frame in reversed(stack) if not frame.file.startswith(_LABKIT)]
    users = [frame for frame in others if not _is_library(frame.file)]
    # Code that was generated, as a dataclass's __init__ is, has no file: rather its caller.
    written = [frame for frame in users if not frame.file.startswith("<")]
    return next(iter(written or users or others), None)


def _label(file: str) -> str:
    """A file's name; for a notebook's cell, which has a file in name only, its number."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    cell = shell.compile.format_code_name(file) if shell else None
    return " ".join(cell) if cell else os.path.basename(file)


def _is_library(file: str) -> bool:
    parts = file.replace("\\", "/").split("/")
    return file.startswith(_NOT_THE_USERS) or "site-packages" in parts or "dist-packages" in parts


def _busiest(looks: list[LateLook], calm: dict[int, Seen]) -> list[Seen]:
    """All that was seen of the thread that was in the most different places, waiters left out."""
    seen: dict[int, list[Seen]] = {}
    for look in looks:
        for ident, found in look.threads.items():
            file = found.stack[-1].file
            waits = os.path.basename(file) in _WAITING and _is_library(file)
            if not waits and found != calm.get(ident):
                seen.setdefault(ident, []).append(found)
    places = [({(x.stack[-1], x.instruction) for x in found}, found) for found in seen.values()]
    return max(places, key=lambda place: len(place[0]), default=(set(), []))[1]


def _runs(frame: Frame) -> bool:
    return (os.path.basename(frame.file), frame.function) in _LOOPS


def _in_select(stack: Stack) -> bool:
    return any(f.function == "select" and f.file.startswith(_LABKIT) for f in stack)
