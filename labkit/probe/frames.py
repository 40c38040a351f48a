"""Frames: a thread's stack as plain lines, and which of those lines are the user's own."""

import contextlib
import gc
import inspect
import linecache
import opcode
import os
import sys
import sysconfig
import threading
from asyncio import events
from collections.abc import Iterator
from functools import lru_cache
from pathlib import PurePath
from types import CodeType, FrameType
from typing import NamedTuple

_LABKIT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_PATHS = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_EVENTS = events.Handle._run.__code__.co_filename  # it calls each callback
_RUN_A_LOOP = {"run_forever", "run_until_complete"}
_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_TYPED = ("<stdin", "<console", "<python-input", "<ipython-input", "<frozen")  # or Python's own
_LONGEST = 200  # characters of a line's text
_GENERATED = "<generated>"  # the file of code that has none, as a dataclass's __init__
# A thread stands at these only where it is made to let go of the interpreter, or asks for it.
_LETS_GO = ("JUMP_BACKWARD", "POP_JUMP_BACKWARD", "RESUME")
# These may take long in C, and are no place to let go of it.
_OPERATORS = ("BINARY", "BUILD", "COMPARE", "CONTAINS", "FORMAT", "STORE_SUBSCR", "UNARY", "UNPACK")
_COLLECTS = sys.version_info < (3, 12)  # in the middle of such a walk; see no_collection
_walking = threading.RLock()
if _COLLECTS and hasattr(os, "register_at_fork"):  # else a child might find it held by nobody
    os.register_at_fork(
        before=_walking.acquire,
        after_in_parent=_walking.release,
        after_in_child=_walking.release,
    )


class Frame(NamedTuple):
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Without directories: they say more about a machine than about a bug."""
        ipython = sys.modules.get("IPython")
        get = getattr(ipython, "get_ipython", None)  # it may be half imported
        shell = get() if get else None
        cell = shell.compile.format_code_name(self.file) if shell else None  # it is in no file
        file = " ".join(cell) if cell else os.path.basename(self.file)
        return f"{file}:{self.line} in {self.function}"


class AsyncFrame(Frame):
    """One line of a coroutine: it may do no more than await the next."""

    __slots__ = ()


Stack = tuple[Frame, ...]  # outermost first
# A long stall looks at the same lines thousands of times.
_frame, _async_frame = lru_cache(4096)(Frame), lru_cache(4096)(AsyncFrame)


def walk(frame: FrameType | None, until: CodeType | None = None, collects: int = 0) -> Stack:
    """A frame and its callers, outermost first; only what was called by the code `until`.

    A function that was only entered is left out: threads are often made to let go of the
    interpreter there. It ends at the frame in which garbage is being collected (`collects` is its
    id): the finalizers on top of it were called by none of its lines.
    """
    frames = list[Frame]()
    with no_collection():
        while frame is not None and frame.f_code is not until:
            if frames and id(frame) == collects:
                break
            if frames or not only_entered(frame):
                code = frame.f_code
                file = _GENERATED if _is_generated(frame) else code.co_filename
                make = _async_frame if code.co_flags & _ASYNC else _frame
                frames.append(make(file, line_of(frame), code.co_name))
            frame = frame.f_back
    return tuple(reversed(frames))


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Read frames of other threads inside it, and of suspended coroutines.

    In Python 3.11, `f_back`, `f_locals` and `cr_frame` make an object, which may start a
    collection. If that other thread runs meanwhile, its frames are gone: the interpreter crashes.
    """
    if not _COLLECTS:
        yield
        return
    with _walking:  # otherwise the first thread to finish would switch collection back on
        if collecting := gc.isenabled():
            gc.disable()
        try:
            yield
        finally:
            if collecting:
                gc.enable()


def line_of(frame: FrameType) -> int:
    """The line that a frame is at; what begins a loop anew and has none is at the loop's first."""
    if frame.f_lineno:
        return frame.f_lineno
    code = frame.f_code
    at = _loops(code).get(frame.f_lasti, frame.f_lasti)
    lines = [line for first, _, line in code.co_lines() if line and first <= at]
    return lines[-1] if lines else code.co_firstlineno


def only_entered(frame: FrameType) -> bool:
    """Whether nothing of a frame's function has run yet."""
    at, code = frame.f_lasti, frame.f_code.co_code
    # The argument's two low bits say what it resumes after: 0 is the function's entry.
    return at >= 0 and opcode.opname[code[at]] == "RESUME" and code[at + 1] & 3 == 0


def lets_go(frame: FrameType) -> bool:
    """Whether a thread stands where it was made to let go of the interpreter, or asks for it."""
    at, code = frame.f_lasti, frame.f_code.co_code
    return at >= 0 and opcode.opname[code[at]].startswith(_LETS_GO)


@lru_cache(256)
def _loops(code: CodeType) -> dict[int, int]:
    """Where the jumps backwards of a function are, and to where they lead: a loop begins there."""
    ops, loops, more = code.co_code, dict[int, int](), 0
    for i in range(0, len(ops), 2):
        name, far = opcode.opname[ops[i]], ops[i + 1] | more
        more = far << 8 if name == "EXTENDED_ARG" else 0
        if "JUMP_BACKWARD" in name:
            loops[i] = i + (4 if ops[i + 2 : i + 3] == b"\0" else 2) - 2 * far  # 0: its cache
    return loops


def after_other_lines(frame: FrameType) -> tuple[bool, bool]:
    """Whether operators of another line, or any of another, ran since it could be made to let go.

    An operator in C (`key in rows`, `a * b`, an f-string) is no place to let go, nor is what an
    iterator does, or what is freed: a look finds the next jump or call, on whichever line that is.
    """
    if only_entered(frame) and frame.f_back:
        frame = frame.f_back
    code, low, operators = frame.f_code, frame.f_lasti, list[int]()
    ops, begin = code.co_code, _loops(code).values()
    for i in range(frame.f_lasti - 2, -1, -2):
        name = opcode.opname[ops[i]]
        if name.startswith(_LETS_GO):
            break
        low = i
        if name.startswith(_OPERATORS):
            operators.append(i)
        if i in begin:
            break
    here = {None, line_of(frame)}
    others = [
        (first, end)
        for first, end, line in code.co_lines()
        if line not in here and first < frame.f_lasti and low < end
    ]
    return any(first <= i < end for first, end in others for i in operators), bool(others)


def _is_generated(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    names = frame.f_globals  # these may be of a class of the user's: hence dict's own methods
    if dict.__contains__(names, "__jinja_template__"):  # its lines are those of no template
        return True
    if not file.startswith("<") or file.startswith(_TYPED):
        return False
    given = dict.get(names, "__name__") == "__main__" and not dict.__contains__(names, "__file__")
    return file != "<string>" or not given  # else, it is from `python -c`


def users_frame(stack: Stack) -> Frame | None:
    """The innermost frame that is the user's own; else, the innermost that is not labkit's.

    What called the loop is not looked at: `asyncio.run(main())` is no line that holds it.
    """
    frame, awaited_at = at_work(stack)
    return awaited_at or frame


def at_work(stack: Stack) -> tuple[Frame | None, Frame | None]:
    """The frame at work; and the user's frame, if that only awaits it (a library's coroutine)."""
    runs = [i for i, frame in enumerate(stack) if _calls_back(frame)]
    # What has such a name need not be a loop's: websocket-client has a `run_forever` of its own.
    runs = runs or [
        i for i, f in enumerate(stack) if f.function in _RUN_A_LOOP and is_library(f.file)
    ]
    inside = [f for f in stack[runs[-1] + 1 if runs else 0 :] if not f.file.startswith(_LABKIT)]
    own = max((i for i, frame in enumerate(inside) if is_users(frame)), default=-1)
    user, called = (inside[own] if own >= 0 else None), inside[own + 1 :]
    if user and [type(frame) for frame in inside[own : own + 2]] != [AsyncFrame, AsyncFrame]:
        return user, None
    written = [frame for frame in called if frame.file != _GENERATED]
    return next(reversed(written or called), None), user


def _calls_back(frame: Frame) -> bool:
    if frame.function == "_run":
        return frame.file == _EVENTS
    return frame.function == "_run_once" and is_library(frame.file)


def is_users(frame: Frame | None) -> bool:
    """Whether a line is in the user's own code."""
    return frame is not None and not is_library(frame.file)


@lru_cache(4096)
def is_library(file: str) -> bool:
    """Whether a file belongs to Python, to an installed package, or to labkit; or is no file."""
    path = PurePath(file)  # compared by its parts: `labkit_service.py` is not in `labkit`
    return (
        file.startswith(("<frozen", _GENERATED))
        or not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
        or any(map(path.is_relative_to, (*_PATHS, _LABKIT)))
    )


def source(frame: Frame | None) -> str:
    """The text of a line, or ""."""
    text = linecache.getline(frame.file, frame.line).strip() if frame else ""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def with_text(frame: Frame) -> str:
    """A line and its text, where it can be read."""
    text = source(frame)
    return f"{frame}: {text}" if text else f"{frame}"
