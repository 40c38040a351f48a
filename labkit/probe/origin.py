"""Where time was spent, and whose work it is.

A stack can hold a framework's frames only, or belong to a thread that was sent a library's
function. Then a coroutine of the user's waits for it: its line is looked for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import re
from collections.abc import Iterator
from types import (
    AsyncGeneratorType,
    BuiltinMethodType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    MethodType,
)
from typing import Any, NamedTuple

from labkit.probe.frames import (
    Frame,
    Stack,
    at_work,
    is_library,
    is_users,
    source,
    users_frame,
    walk,
)

_SUSPENDS = (CoroutineType, GeneratorType, AsyncGeneratorType)
_WAKEUPS = {"task_wakeup", "__wakeup"}  # a task's, in C and in Python: what it waits for is done
_DEEPEST = 8  # a task awaits a task awaits a task: as far as this
_MANY = 100  # items in a process pool; to ask who waits for each of more would take too long
_RUNS_A_LOOP = re.compile(r"\brun_(forever|until_complete)\(").search

Where = tuple[Frame | None, str | None]  # a line, and the thread that kept the interpreter there


class Place(NamedTuple):
    """Where a share of the time was spent."""

    stack: Stack = ()
    task: str | None = None  # its name, if somebody gave it one
    thread: str | None = None  # None: the loop's own
    awaited_at: Frame | None = None  # the user's line that awaits it, if no user's line did it

    @property
    def line(self) -> Frame | None:
        """The user's line, if there is any, as a library's work is spread over many lines."""
        frame = users_frame(self.stack)
        return frame if is_users(frame) else self.awaited_at or frame

    @property
    def where(self) -> Where:
        """What the looks are counted by."""
        return self.line, self.thread

    @property
    def frame(self) -> Frame | None:
        """The line at work; in a thread, never the line that runs a compiled loop (uvloop)."""
        runs = [i for i, f in enumerate(self.stack) if self.thread and _RUNS_A_LOOP(source(f))]
        return at_work(self.stack[runs[-1] + 1 :] if runs else self.stack)[0]


def place_in_task(stack: Stack, task: asyncio.Task[Any] | None) -> Place:
    """A place on the loop's thread."""
    if task is None:
        return Place(stack)
    name = None if re.fullmatch(r"Task-\d+", task.get_name()) else task.get_name()
    frame, line = at_work(stack)
    return Place(stack, name, None, line or (None if is_users(frame) else _awaiting_line(task)))


def place_in_thread(frame: FrameType | None, thread: str) -> Place:
    """A place on another thread."""
    stack = walk(frame, another=True)
    named, line = at_work(stack)
    return Place(stack, None, thread, line or (None if is_users(named) else _sent_from(frame)))


def _sent_from(frame: FrameType | None) -> Frame | None:
    """The user's line that sent a thread its work (to_thread, run_in_executor) and awaits it."""
    receives = False
    while frame is not None:
        receives |= frame.f_code.co_name == "recv"
        values = list(frame.f_locals.values())
        for value in values:
            is_item = _name(type(value)) == "_WorkItem"
            future = getattr(value, "__dict__", {}).get("future") if is_item else value
            if _is_future(future):
                return _waiting_for(future, 0)
        # A process pool's own threads pickle and unpickle one of its items.
        at_one = {"_SafeQueue", "_ExecutorManagerThread"} if receives else {"_SafeQueue"}
        for value in values:
            pool = value.__self__ if type(value) is MethodType else value
            if _name(type(pool)) in at_one:
                items = list(getattr(pool, "__dict__", {}).get("pending_work_items", {}).values())
                lines = {_waiting_for(item.future, 0) for item in items[: _MANY + 1]}
                return lines.pop() if len(lines) == 1 and len(items) <= _MANY else None
        frame = frame.f_back
    return None


def _name(kind: type) -> str:
    """A type's name; unlike `kind.__name__`, it calls no metaclass of the user's."""
    name: str = vars(type)["__name__"].__get__(kind)
    return name


def _is_future(value: Any) -> bool:
    """Whether it is one, by its type alone: `isinstance` could call code of the user's."""
    kind = type(value)
    future = concurrent.futures.Future in type.mro(kind)
    return future or _has(kind, "_asyncio_future_blocking")


def _has(kind: type, name: str) -> bool:
    """Whether a type has an attribute; unlike `hasattr`, it calls no metaclass of the user's."""
    return any(name in vars(base) for base in type.mro(kind))


def _awaiting_line(task: asyncio.Task[Any], depth: int = 0) -> Frame | None:
    """The user's innermost line in what a task awaits; if there is none, who awaits the task."""
    lines = [Frame(f.f_code.co_filename, f.f_lineno or 0, f.f_code.co_name) for f in _chain(task)]
    users = [line for line in lines if is_users(line)]
    return users[-1] if users else _waiting_for(task, depth + 1)


def _chain(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of a task's coroutine and of all that it awaits, outermost first."""
    step: Any = task.get_coro()
    for _ in range(200):
        if step is None or _is_future(step):
            return
        known = (kind for kind in ("cr", "gi", "ag") if _has(type(step), f"{kind}_frame"))
        kind = next(known, None)
        if kind:
            if frame := getattr(step, f"{kind}_frame"):
                yield frame
            step = getattr(step, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
        else:  # what wraps an async generator or an `__await__` does not say what it holds
            held = [x for x in gc.get_referents(step) if issubclass(type(x), _SUSPENDS)]
            step = held[0] if held else None


def _waiting_for(future: Any, depth: int) -> Frame | None:
    """The user's line that awaits a future, looked for in what is to be called when it is done."""
    callbacks = getattr(future, "_callbacks", None) or getattr(future, "_done_callbacks", None)
    for item in list(callbacks or ()) if depth <= _DEEPEST else ():
        callback = item[0] if isinstance(item, tuple) else item
        for other in _woken_by(callback):
            line = None
            if issubclass(type(other), asyncio.Task) and other is not future:
                line = _awaiting_line(other, depth + 1)
            elif _is_future(other) and other is not future:
                line = _waiting_for(other, depth + 1)
            if line:
                return line
    return None


def _woken_by(callback: Any) -> list[Any]:
    """Who goes on when it is called. A callback of the user's may do anything: it tells nothing."""
    if type(callback) in (BuiltinMethodType, MethodType):
        owner = callback.__self__
        if asyncio.TaskGroup in type.mro(type(owner)):
            return [owner._parent_task]
        return [owner] if getattr(callback, "__name__", "") in _WAKEUPS else []
    # gather, wait, shield and wrap_future call a closure that knows the next future.
    if type(callback) is FunctionType and is_library(callback.__code__.co_filename):
        return gc.get_referents(*(callback.__closure__ or ()))
    return []
