"""What one call of a coroutine function costs this process. For the check of `transform`.

It is to be called with nothing else on the loop. Then all CPU time is its own, in whatever file its
helpers stand; and CPU time is the same on a busy machine.
"""

import asyncio
import struct
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter, process_time, thread_time
from types import FrameType
from typing import Any
from unittest.mock import patch

import asyncpg

import labkit as lab
from labkit.probe import thread_cpu, users_frame, walk
from labkit.probe.frames import Stack, is_users

ENOUGH = 0.018  # s of CPU time at a stretch: more is felt by everybody


@dataclass
class Cost:
    """What one call took from this process, with nothing else on the loop."""

    waited: bool = True  # it gave the loop back, to wait for something
    loop: float = 0.0  # s of CPU time that the loop's thread needed at a stretch, at the most
    when: tuple[float, float] = (0.0, 0.0)  # from when to when that was, by perf_counter
    where: str = ""  # the line that was seen in it
    held: float = 0.0  # s between two looks into the loop's selector, in all
    threads: float = 0.0  # s of CPU time in all other threads but labkit's
    # The lines of the answer's in which those were found at work, or "", and the thread's name.
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: int = 0  # that were decoded at a time, at the most
    connections: set[int] = field(default_factory=set)  # that rows came from


async def measured(best: Callable[[], Awaitable[None]], cost: Cost) -> None:
    """Call the answer, and write down what it took."""
    waited = asyncio.Event()
    entered = perf_counter()
    with longest_stretch(cost), lab.Probe(1e3 * ENOUGH) as probe, watched_threads(cost):
        asyncio.get_running_loop().call_soon(waited.set)
        try:
            await best()
        except lab.LabError:
            raise
        except Exception as error:
            raise lab.LabError(f"a call, alone: {type(error).__name__}: {error}") from None
    cost.waited = waited.is_set()
    began, ended = cost.when
    for stall in probe.stalls:
        middle = entered + stall.start_s + stall.duration_ms / 2e3
        if began < middle < ended and stall.frame and stall.frame.file != __file__:
            cost.where = f", at {stall.frame}: {stall.source}"


@contextmanager
def longest_stretch(cost: Cost) -> Iterator[None]:
    """Read the CPU clock of the loop's thread whenever it comes to its selector, and goes on."""
    selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    wait, since, began = selector.select, thread_time(), perf_counter()

    def note() -> None:
        cost.held += perf_counter() - began
        if (used := thread_time() - since) > cost.loop:
            cost.loop, cost.when = used, (began, perf_counter())

    def select(timeout: float | None = None) -> Any:
        nonlocal since, began
        note()
        events = wait(timeout)
        since, began = thread_time(), perf_counter()
        return events

    selector.select = select
    try:
        yield
    finally:
        note()
        del selector.select  # the class's own is back


@contextmanager
def watched_threads(cost: Cost) -> Iterator[None]:
    """Look where the threads are at work that are neither the loop's nor labkit's, and how long."""
    not_these = {threading.get_ident(), threading.main_thread().ident}
    done = threading.Event()
    last: dict[threading.Thread, tuple[object, int]] = {}
    clocks = {it: thread_cpu(it.native_id) or 0.0 for it in threading.enumerate()}
    process, own = process_time(), thread_time()

    def look() -> None:
        frames = sys._current_frames()
        for it in threading.enumerate():
            frame = frames.get(it.ident or 0)
            if frame is None or it.ident in not_these or it.name.startswith("lab"):
                continue
            at_work, cpu = users_frame(without_the_check(frame)), thread_cpu(it.native_id)
            if cpu is not None:
                used, clocks[it] = cpu - clocks.get(it, 0.0), cpu
                cost.threads += used
                worked = used > 0.001
            else:  # who waits does not move; an executor's thread, between two jobs, does
                at = frame.f_code, frame.f_lasti
                moved, last[it] = last.get(it) not in (None, at), at
                worked = moved and (at_work is None or at_work.function != "_worker")
            if worked:
                # A library's line may be where the interpreter changes hands, and no more.
                line = f"at {at_work}, " if is_users(at_work) else ""
                cost.seen[line, name_of(it)] += 1

    def watch() -> None:
        not_these.add(threading.get_ident())
        while not done.wait(0.005):
            look()
        look()

    watcher = threading.Thread(target=watch, name="labkit: the check", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        if thread_cpu(threading.get_native_id()) is None:  # then labkit's threads add up, too
            cost.threads = process_time() - process - (thread_time() - own)


def name_of(thread: threading.Thread) -> str:
    """Its name; of a library's own kind of thread, which may have none, the kind."""
    kind = type(thread).__name__
    return kind if kind == "_ExecutorManagerThread" else thread.name


def without_the_check(frame: FrameType) -> Stack:
    """Who called whom, but for the check's own lines: `Listening` is called on any loop."""
    return tuple(each for each in walk(frame) if each.file != __file__)


@contextmanager
def counted_rows(costs: list[Cost]) -> Iterator[None]:
    """Listen to each connection of asyncpg that is made in the block, for the last of the costs."""
    make = asyncpg.Connection.__init__

    def listened(self: Any, protocol: Any, transport: Any, *args: Any) -> None:
        transport.set_protocol(Listening(protocol, costs))
        make(self, protocol, transport, *args)

    with patch.object(asyncpg.Connection, "__init__", listened):
        yield


class Listening:
    """Counts the rows in what PostgreSQL sends, and hands it on to asyncpg."""

    def __init__(self, protocol: Any, costs: list[Cost]) -> None:
        self._costs, self._rows, self._rest = costs, 0, bytearray()
        self._protocol = protocol

    def __getattr__(self, name: str) -> Any:
        """All but what arrives is asyncpg's own affair."""
        return getattr(self._protocol, name)

    def data_received(self, data: bytes) -> None:
        """A message is a letter, its length in four bytes, and its content."""
        self._rest += data
        at = 0
        while len(self._rest) >= at + 5:
            kind, length = struct.unpack_from("!cI", self._rest, at)
            if len(self._rest) < (end := at + 1 + length):
                break
            if kind == b"D":  # a row; of COPY (d), asyncpg decodes none
                self._rows += 1
                cost = self._costs[-1]
                cost.rows = max(cost.rows, self._rows)
                cost.connections.add(id(self))
            elif kind in (b"C", b"s"):  # that is all; that is all of this batch
                self._rows = 0
            at = end
        del self._rest[:at]
        self._protocol.data_received(data)
