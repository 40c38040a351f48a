"""What a stall is, and what to do about each of its causes."""

from dataclasses import dataclass
from typing import NamedTuple

from labkit.probe.frames import Frame, Stack, source, with_text

MACHINE = "the process was kept from running"  # a part that is nobody's fault
OWN_THREADS = "threads of its own had the processors"

# What to do about a stall, by its cause. `python -m labkit.probe why CAUSE` prints it.
ADVICE = {
    "blocked": (
        "The loop's thread waited in a call that does not let other tasks run. Use the library's "
        "asynchronous counterpart (asyncpg for psycopg2, asyncio.sleep for time.sleep); where "
        "there is none, await asyncio.to_thread(call)."
    ),
    "computing": (
        "The loop's thread ran code for the whole time. Do less of it (let SQL aggregate, fetch "
        "fewer rows), cut it into pieces with `await asyncio.sleep(0)` between them, or run it in "
        "a process pool. A thread frees the loop only if the code lets go of the interpreter, as "
        "hashing and compression do; else one long hold becomes many short ones."
    ),
    "collecting garbage": (
        "Python's collector went over a large heap. Keep fewer objects alive, call gc.freeze() "
        "once the service has started, or raise gc.set_threshold() (rarer pauses, no shorter)."
    ),
    "starved by another thread": (
        "Another thread kept the interpreter, so the loop could not run. Move that thread's work "
        "into a process, or cut it into short calls with a pause between them."
    ),
    "unknown": (
        "Something kept the interpreter, or the processors, and it could not be proved who. Look "
        "at native extensions, at threads that were started outside Python, and at how many "
        "threads compute at once; repeat it on a quiet machine."
    ),
}

_FEW = 0.25  # of a stall: a line with less of it is only an example
_NEAR = "at or shortly before"


class Part(NamedTuple):
    """Another cause that took a good part of a stall."""

    cause: str
    ms: float
    frame: Frame | None
    approximate: bool = False  # as the stall's

    def __str__(self) -> str:
        at = f", {_NEAR if self.approximate else 'at'} {self.frame}" if self.frame else ""
        return f"{self.cause} for {self.ms:.0f} ms{at}"


@dataclass(frozen=True, slots=True)
class Stall:
    """One iteration of the loop that took longer than the threshold.

    Attributes:
        start_s: When it began, in seconds since the probe was entered; a probe that is entered
            again goes on counting.
        duration_ms: How long the loop was busy, in milliseconds.
        cause: "blocked" (the loop's thread waited), "computing" (it ran), "collecting garbage",
            "starved by another thread" (that one kept the interpreter, and the loop wanted it), or
            "unknown" (none of these could be proved).
        frame: The user's innermost line on the loop's thread, or on `thread`; where there is none,
            or it only awaits, the library's. None if there was no Python frame.
        stack: The whole stack around it, from the loop inwards.
        samples: How many looks found the loop in this stall.
        approximate: The looks came late, as when C code keeps the interpreter: what did it is at
            the frame or shortly before, and `task` and `awaited_at` are as uncertain.
        tasks: In how many different tasks the looks found that line.
        thread: The name of the thread that starved the loop, else None.
        task: The name of the task, if it was given one, and did most of it.
        awaited_at: The user's line that waits for it, where the frame is not the user's.
        also: Other causes that took a good part of it.
        share: For how much of `own_ms` the looks found that line; little, if many lines did it.
    """

    start_s: float
    duration_ms: float
    cause: str
    frame: Frame | None
    stack: Stack
    samples: int
    approximate: bool
    tasks: int
    thread: str | None
    task: str | None = None
    awaited_at: Frame | None = None
    also: tuple[Part, ...] = ()
    share: float = 1.0

    @property
    def line(self) -> Frame | None:
        """The user's line if there is one, or the frame: what such stalls are counted by."""
        return self.awaited_at or self.frame

    @property
    def at(self) -> str:
        """How sure that line is: "at" to "perhaps awaited at"."""
        awaited = "perhaps awaited at" if self.approximate else "awaited at"
        return awaited if self.awaited_at else self._at

    @property
    def _at(self) -> str:
        if self.share < _FEW:
            return "e.g. at"
        return _NEAR if self.approximate else "at"

    @property
    def own_ms(self) -> float:
        """How long it took without the time for which the machine kept the process from running."""
        return self.duration_ms - sum(part.ms for part in self.also if part.cause == MACHINE)

    @property
    def source(self) -> str:
        """The text of the line, or ""."""
        return source(self.frame)

    def __str__(self) -> str:
        text = f"{self.duration_ms:.0f} ms, {self.cause}"
        if self.thread:
            text += f" ({self.thread})"
        if self.cause != "unknown":
            if self.tasks > 1 and not self.task:
                text += f", in {self.tasks} tasks or more"
            if self.frame:
                text += f", {self._at} {with_text(self.frame)}"
            elif self.samples:
                loops = "" if self.thread else ", the loop itself or short callbacks"
                text += f", where there was no Python frame (C code{loops})"
            else:
                text += ", in a line that no look found"
        if self.task:
            text += f", in task {self.task!r}"
        if self.awaited_at:
            text += f", {self.at} {with_text(self.awaited_at)}"
        return "; ".join([text, *map(str, self.also)])
