"""Whose work is it? The user's line that waits for it, where no frame of the stack is the user's.

A stack can be cut (greenlets, as in SQLAlchemy's sessions), or hold a framework's frames only, or
belong to a thread that was sent a library's function. Then a coroutine of the user's waits for it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import re
import sys
from collections.abc import Iterator
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

from labkit.probe.frames import Frame, is_users, users_frame, walk

_SUSPENDS = (CoroutineType, GeneratorType, AsyncGeneratorType)
_DEEPEST = 8  # a task awaits a task awaits a task: as far as this


def task_name(task: asyncio.Task[Any] | None) -> str | None:
    """The name that somebody gave to a task; None for asyncio's own, as Task-7."""
    name = task.get_name() if task else "Task-0"
    return None if re.fullmatch(r"Task-\d+", name) else name


def awaiting_line(task: asyncio.Task[Any] | None, depth: int = 0) -> Frame | None:
    """The user's innermost line on the way down from a task's coroutine to what it awaits.

    If no line of the task is the user's: the line that awaits the task.
    """
    if task is None or depth > _DEEPEST:
        return None
    lines = [Frame(f.f_code.co_filename, f.f_lineno or 0, f.f_code.co_name) for f in _chain(task)]
    users = [line for line in lines if is_users(line)]
    return users[-1] if users else _waiting_for(task, depth + 1)


def sent_from(frame: FrameType | None) -> Frame | None:
    """The user's line that sent a thread its work (to_thread, run_in_executor) and awaits it."""
    while frame is not None:
        if not is_users(Frame(frame.f_code.co_filename, 0, "")):
            for value in list(frame.f_locals.values()):
                future = getattr(value, "future", value)
                if isinstance(future, concurrent.futures.Future) or asyncio.isfuture(future):
                    return _waiting_for(future, 0)
        frame = frame.f_back
    return None


def greenlet_caller() -> Frame | None:
    """The user's line that entered this thread's present greenlet. On that thread only."""
    greenlet = sys.modules.get("greenlet")
    parent = greenlet.getcurrent().parent if greenlet else None
    line = users_frame(walk(parent.gr_frame)) if parent else None
    return line if is_users(line) else None


def _chain(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames of a task's coroutine and of all that it awaits, outermost first."""
    step: Any = task.get_coro()
    for _ in range(200):
        if step is None or asyncio.isfuture(step):
            return
        kind = next((k for k in ("cr", "gi", "ag") if hasattr(step, f"{k}_frame")), None)
        inner = None
        if kind:
            if frame := getattr(step, f"{kind}_frame"):
                yield frame
            inner = getattr(step, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
        if inner is None:  # it runs, or is a wrapper: then it holds what it awaits (3.12 and later)
            held = [x for x in gc.get_referents(step) if isinstance(x, _SUSPENDS)]
            running = [x for x in held if kind is None or _runs(x)]
            inner = running[-1] if running else None
        step = inner


def _runs(step: Any) -> bool:
    return any(getattr(step, f"{kind}_running", False) for kind in ("cr", "gi", "ag"))


def _waiting_for(future: Any, depth: int) -> Frame | None:
    """The user's line that awaits a future, looked for in what is to be called when it is done."""
    if depth > _DEEPEST:
        return None
    callbacks = getattr(future, "_callbacks", None) or getattr(future, "_done_callbacks", None)
    for item in list(callbacks or ()):
        callback = item[0] if isinstance(item, tuple) else item
        owner = getattr(callback, "__self__", None)
        task = getattr(owner, "_parent_task", owner)  # a TaskGroup waits in its parent
        cells = [cell.cell_contents for cell in getattr(callback, "__closure__", None) or ()]
        line = awaiting_line(task, depth + 1) if isinstance(task, asyncio.Task) else None
        for other in cells:
            if line is None and asyncio.isfuture(other) and other is not future:
                if isinstance(other, asyncio.Task):
                    line = awaiting_line(other, depth + 1)
                line = line or _waiting_for(other, depth + 1)
        if line:
            return line
    return None
