"""What a coroutine function calls on the loop's thread, and what of that waits. For `report`."""

import linecache
import os
import re
import select
import sys
import threading
from _queue import SimpleQueue
from asyncio import events
from collections.abc import Iterator
from contextlib import contextmanager
from socket import SocketType
from time import perf_counter
from types import FrameType
from typing import Any

import asyncpg
from ipykernel import iostream

import labkit as lab
from labkit.probe import users_frame, walk

LONG = 0.005  # s; what is written in C keeps the loop's thread for less, unless it waits

# What waits, whoever calls it: functions and methods, by their module.
WAITS = {
    "time": ("sleep",),
    "io": ("open",),
    "_io": ("open",),  # the same, in later Pythons
    "select": ("select", "poll", "control"),
    "_socket": ("getaddrinfo", "gethostbyname", "gethostbyaddr"),
    "posix": ("system", "waitpid", "open", "fsync"),
    "nt": ("system", "waitpid", "open", "fsync"),
    "_posixsubprocess": ("fork_exec",),
    "_winapi": ("CreateProcess", "WaitForSingleObject"),
}
DRIVERS = ("psycopg2", "psycopg_binary", "sqlite3", "_sqlite3", "MySQLdb", "pyodbc", "duckdb")
ASK = ("connect", "_connect", "execute", "callproc", "commit", "rollback", "copy", "query", "wait")
TALK = ("connect", "accept", "recv", "send")  # on a socket
LOOP = events.Handle._run.__code__.co_filename  # its frame calls each callback
# Whose calls do not wait: asyncio, asyncpg.
TRUSTED = tuple(os.path.join(os.path.dirname(file), "") for file in (LOOP, asyncpg.__file__))
PYTHON = ("<frozen", os.path.join(os.path.dirname(os.path.dirname(LOOP)), ""))

# Where a thread's join() waits: up to Python 3.12, in a method of its own.
JOIN = getattr(threading.Thread, "_wait_for_tstate_lock", threading.Thread.join).__code__

# What may wait, but is told not to, or is only made: so says the line, or the standard library's.
ONLY_ASKS = re.compile(r"sleep\(0\)|WNOHANG|(select|poll)\((.*, )?0\)|(_cls|select\.poll)\(\)")

Place = tuple[lab.Frame, str]  # a line, and what it calls there


class Calls:
    """What was called on this thread, of all that is written in C."""

    def __init__(self) -> None:
        self._waits: set[Place] = set()
        self._long: list[set[Place]] = []  # for each time that was watched
        self._began: list[float] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch this thread's calls for as long as the block runs."""
        before = sys.getprofile()
        self._long.append(set())
        self._began.clear()
        sys.setprofile(self._on_event)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _on_event(self, frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call":
            self._began.append(perf_counter())
            known = _waits(function) and not _only_asks(frame)
            if known or _waits_for_a_thread(frame, function) or _has_to_wait(frame, function):
                self._waits |= _place(frame, function)
        elif event in ("c_return", "c_exception") and self._began:
            took = perf_counter() - self._began.pop()
            self._long[-1] |= _place(frame, function) if took > LONG else set()

    @property
    def certain(self) -> bool:
        """Whether a call was seen that is known to wait. Else it is the clock that says so."""
        return bool(self._waits)

    def blocking(self) -> str:
        """A line for each place that blocks; "" if there is none."""
        # Long once or twice may be the machine's doing.
        often = {p for p in set().union(*self._long) if sum(p in long for long in self._long) > 2}
        shown = [
            f"\n  {frame}: {linecache.getline(*frame[:2]).strip()} ({name})"
            for frame, name in sorted(self._waits | often)
        ]
        return "".join(dict.fromkeys(shown))


def _waits(function: Any) -> bool:
    """Whether a function is known to wait."""
    owner, name = getattr(function, "__self__", None), function.__name__
    if isinstance(owner, SocketType):
        return owner.gettimeout() != 0 and bool(name.startswith(TALK))
    module = function.__module__ or type(owner).__module__
    if module.partition(".")[0] in DRIVERS:
        return bool(name.startswith(ASK))
    return name in WAITS.get(module, ())


def _only_asks(frame: FrameType) -> bool:
    """Whether what may wait was told not to: who polls may well do so, and awaits in between."""
    selects = frame.f_globals.get("__name__") == "selectors"
    return bool(ONLY_ASKS.search(_line(frame))) or (selects and frame.f_locals.get("timeout") == 0)


def _has_to_wait(frame: FrameType, function: Any) -> bool:
    """Whether it wants a lock, an item of a queue, or what comes by a pipe, and it is not there."""
    owner, line = getattr(function, "__self__", None), _line(frame)
    if isinstance(owner, SimpleQueue):
        return ".get()" in line and owner.empty()
    if isinstance(owner, type(threading.Lock())):
        return ".acquire()" in line and owner.locked()
    its = frame.f_globals.get("__name__"), frame.f_code.co_name, function.__name__
    if its != ("multiprocessing.connection", "_recv", "read"):
        return False
    return not select.select([frame.f_locals["handle"]], [], [], 0)[0]


def _line(frame: FrameType) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno)


def _waits_for_a_thread(frame: FrameType, function: Any) -> bool:
    """Whether this waits for a thread that runs: a future's, an event's, a queue's, a `join()`."""
    known = frame.f_locals
    if frame.f_code is threading.Condition.wait.__code__:
        return bool(function.__name__ == "acquire" and known["timeout"] != 0)
    if frame.f_code is not JOIN or function.__name__ not in ("acquire", "join"):
        return False
    # `is_alive()` asks the same way, and does not block. And who shuts an executor down joins its
    # threads, idle ones as well: only the clock tells that from waiting for their work.
    shuts_down = ("shutdown", "thread.py")
    executor = any((f.function, os.path.basename(f.file)) == shuts_down for f in walk(frame))
    its = function.__self__  # a lock that the thread holds while it runs, or the thread's handle
    runs = its.locked() if function.__name__ == "acquire" else not its.is_done()
    return bool(known.get("block", True)) and known["timeout"] != 0 and runs and not executor


def _place(frame: FrameType, function: Any) -> set[Place]:
    """The answer's line that made this call; none if asyncio, asyncpg or an import made it."""
    stack = walk(frame)
    callbacks = [i for i, f in enumerate(stack) if f.function == "_run" and f.file == LOOP]
    stack = stack[callbacks[-1] + 1 :] if callbacks else ()
    # A thread that is started is waited for, until it runs.
    starts = any((f.function, os.path.basename(f.file)) == ("start", "threading.py") for f in stack)
    imports = any(f.file.startswith("<frozen importlib") for f in stack)
    # What is printed in a notebook waits for a thread of Jupyter's, and a service has none.
    prints = any(f.file == iostream.__file__ for f in stack)
    if starts or imports or prints or _is_trusted(stack):
        return set()
    line = users_frame(stack)
    return {(line, function.__qualname__)} if line else set()


def _is_trusted(stack: tuple[lab.Frame, ...]) -> bool:
    """Whether asyncio or asyncpg made the call, perhaps by other modules of Python.

    What they only await (`asyncio.wait_for(yours(), 5)`) or call back is no call of theirs.
    """
    for frame in reversed(stack):
        if frame.file.startswith(TRUSTED):
            return True
        if not frame.file.startswith(PYTHON) or "site-packages" in frame.file:
            return False
    return False
