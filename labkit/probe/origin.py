"""Where time was spent, and whose work it is.

A stack can hold a framework's frames only, or belong to a thread that was sent a library's
function. Then a coroutine of the user's waits for it: its line is looked for. No code of the
user's is called for that: a class is asked by `type`, as its metaclass or a proxy may do anything.
"""

import asyncio
import gc
import re
import types
from typing import Any, NamedTuple

from labkit.probe.frames import Frame, Stack, at_work, is_library, is_users, line_of, source, walk

# Python's own, and how the names of what they hold begin. None of these has subclasses.
_SUSPENDS = {types.CoroutineType: "cr", types.GeneratorType: "gi", types.AsyncGeneratorType: "ag"}
_FUTURE = ("_asyncio_future_blocking", "set_running_or_notify_cancel")  # either kind's mark
_WAKEUPS = {"task_wakeup", "__wakeup"}  # a task's, in C and in Python: what it waits for is done
_DEEPEST = 8  # a task awaits a task awaits a task: as far as this
_MANY = 100  # items in a process pool; to ask who waits for each of more would take too long
# A subclass of the user's may have a `get_name` of its own, which may do anything.
_GET_NAMES = (asyncio.Task.get_name, getattr(asyncio.tasks, "_PyTask", asyncio.Task).get_name)
_RUNS_A_LOOP = re.compile(r"\brun_(forever|until_complete)\(").search

Where = tuple[Frame | None, str | None]  # a line, and the thread that kept the interpreter there


class Place(NamedTuple):
    """Where a share of the time was spent."""

    stack: Stack = ()
    task: str | None = None  # its name, if somebody gave it one
    thread: str | None = None  # None: the loop's own
    awaited_at: Frame | None = None  # the user's line that awaits it, if no user's line did it

    @property
    def frame(self) -> Frame | None:
        """The line at work; in a thread, never the line that runs a compiled loop (uvloop)."""
        # This reads files, which lets threads move on: it is no part of a look.
        runs = [i for i, f in enumerate(self.stack) if self.thread and _RUNS_A_LOOP(source(f))]
        return at_work(self.stack[runs[-1] + 1 :] if runs else self.stack)[0]

    @property
    def line(self) -> Frame | None:
        """The user's line, if there is any, as a library's work is spread over many lines."""
        return self.awaited_at or self.frame

    @property
    def where(self) -> Where:
        """What the looks are counted by."""
        return self.line, self.thread


def place_in_task(stack: Stack, task: asyncio.Task[Any] | None) -> Place:
    """A place on the loop's thread."""
    frame, line = at_work(stack)
    if task is None:
        return Place(stack, awaited_at=line)
    name = task.get_name() if type(task).get_name in _GET_NAMES else ""
    given = None if re.fullmatch(r"(Task-\d+)?", name) else name
    return Place(stack, given, None, line or (None if is_users(frame) else _awaiting_line(task)))


def place_in_thread(frame: types.FrameType | None, thread: str) -> Place:
    """A place on another thread."""
    stack = walk(frame)
    named, line = at_work(stack)
    return Place(stack, None, thread, line or (None if is_users(named) else _sent_from(frame)))


def _sent_from(frame: types.FrameType | None) -> Frame | None:
    """The user's line that sent a thread its work (to_thread, run_in_executor) and awaits it."""
    receives = False
    while frame is not None:
        receives |= frame.f_code.co_name == "recv"
        for value in list(frame.f_locals.values()):
            owner = value.__self__ if type(value) is types.MethodType else value
            kind = vars(type)["__name__"].__get__(type(owner))  # calls no metaclass of the user's
            if _has(value, *_FUTURE):
                futures = [value]
            elif kind == "_WorkItem":
                futures = [getattr(owner, "__dict__", {}).get("future")]
            elif kind == "_SafeQueue" or (receives and kind == "_ExecutorManagerThread"):
                # A process pool's own threads: they pickle or unpickle one of its items.
                items = getattr(owner, "__dict__", {}).get("pending_work_items", {})
                futures = [item.future for item in list(items.values())[: _MANY + 1]]
            else:
                continue
            lines = {_waiting_for(future) for future in futures}
            return lines.pop() if len(lines) == 1 and len(futures) <= _MANY else None
        frame = frame.f_back
    return None


def _has(value: Any, *names: str) -> bool:
    """Whether a value's class has one of these attributes."""
    return any(name in vars(base) for base in type.mro(type(value)) for name in names)


def _awaiting_line(task: asyncio.Task[Any], depth: int = 0) -> Frame | None:
    """The user's innermost line in what a task awaits; if there is none, who awaits the task."""
    line: Frame | None = None
    step: Any = task.get_coro()
    for _ in range(200):
        if step is None or _has(step, *_FUTURE):
            break
        if kind := _SUSPENDS.get(type(step)):
            if frame := getattr(step, f"{kind}_frame"):
                here = Frame(frame.f_code.co_filename, line_of(frame), frame.f_code.co_name)
                line = here if is_users(here) else line
            # One that runs awaits nothing. And while an error comes through it, Python 3.11 tells
            # of an object that there is not, and crashes.
            if not getattr(step, f"{kind}_suspended", True):  # 3.11 does not tell of generators
                break
            step = getattr(step, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
        else:  # what is compiled, or wraps an async generator or an `__await__`, does not say
            held = (x for x in gc.get_referents(step) if type(x) in _SUSPENDS)
            step = next(held, None)
    return line or _waiting_for(task, depth + 1)


def _waiting_for(future: Any, depth: int = 0) -> Frame | None:
    """The user's line that awaits a future, looked for in what is to be called when it is done."""
    callbacks = getattr(future, "_callbacks", None) or getattr(future, "_done_callbacks", None)
    for item in list(callbacks or ()) if depth <= _DEEPEST else ():
        for other in _woken_by(item[0] if isinstance(item, tuple) else item):
            if other is not future and _has(other, *_FUTURE):
                follow = _awaiting_line if _has(other, "get_coro") else _waiting_for
                if line := follow(other, depth + 1):
                    return line
    return None


def _woken_by(callback: Any) -> list[Any]:
    """Who goes on when it is called. A callback of the user's may do anything: it tells nothing."""
    if type(callback) in (types.BuiltinMethodType, types.MethodType):
        owner = callback.__self__
        if issubclass(type(owner), asyncio.TaskGroup):
            return [owner._parent_task]
        return [owner] if getattr(callback, "__name__", "") in _WAKEUPS else []
    # gather, wait, shield and wrap_future call a closure that knows the next future.
    if type(callback) is types.FunctionType and is_library(callback.__code__.co_filename):
        return gc.get_referents(*(callback.__closure__ or ()))
    return []
