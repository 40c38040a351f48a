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
from time import process_time, thread_time
from typing import Any
from unittest.mock import patch

import asyncpg

import labkit as lab
from labkit.probe import users_frame, walk

ENOUGH = 0.018  # s of CPU time at a stretch: more is felt by everybody


@dataclass
class Cost:
    """What one call took from this process, with nothing else on the loop."""

    waited: bool = True  # it gave the loop back, to wait for something
    loop: float = 0.0  # s of CPU time that the loop's thread needed at a stretch, at the most
    where: str = ""  # the line that was seen in that
    threads: float = 0.0  # s of CPU time in all other threads
    seen: Counter[str] = field(default_factory=Counter)  # where those were found at work
    rows: int = 0  # that came at a time, at the most


async def measured(best: Callable[[], Awaitable[None]], cost: Cost) -> None:
    """Call the answer, and write down what it took."""
    waited = asyncio.Event()
    with longest_stretch(cost), lab.Probe(1e3 * ENOUGH) as probe, watched_threads(cost):
        used, own = process_time(), thread_time()
        asyncio.get_running_loop().call_soon(waited.set)
        try:
            await best()
        except lab.LabError:
            raise
        except Exception as error:
            raise lab.LabError(f"a call, alone: {type(error).__name__}: {error}") from None
        used, own = process_time() - used, thread_time() - own
    cost.threads += used - own
    cost.waited = waited.is_set()
    longest = max(probe.stalls, key=lambda stall: stall.duration_ms, default=None)
    if longest and longest.frame and longest.frame.file != __file__:
        cost.where = f", at {longest.frame}: {longest.source}"


@contextmanager
def longest_stretch(cost: Cost) -> Iterator[None]:
    """Read the CPU clock of the loop's thread whenever it comes to its selector, and goes on."""
    selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    wait, since = selector.select, thread_time()

    def select(timeout: float | None = None) -> Any:
        nonlocal since
        cost.loop = max(cost.loop, thread_time() - since)
        events = wait(timeout)
        since = thread_time()
        return events

    selector.select = select
    try:
        yield
    finally:
        cost.loop = max(cost.loop, thread_time() - since)
        del selector.select  # the class's own is back


@contextmanager
def watched_threads(cost: Cost) -> Iterator[None]:
    """Look where the threads are at work that are neither the loop's nor this check's."""
    not_these, done = {threading.get_ident()}, threading.Event()
    last: dict[int, tuple[object, int]] = {}

    def watch() -> None:
        not_these.add(threading.get_ident())
        while not done.wait(0.005):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                at = frame.f_code, frame.f_lasti
                moved = last.get(ident) not in (None, at)
                last[ident] = at
                # Who waits does not move.
                if moved and ident not in not_these and not names.get(ident, "").startswith("lab"):
                    cost.seen[f"{users_frame(walk(frame))} ({names.get(ident)})"] += 1
        cost.threads -= thread_time()

    watcher = threading.Thread(target=watch, name="labkit: the check", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextmanager
def counted_rows(cost: Cost) -> Iterator[None]:
    """Listen to each connection of asyncpg that is made in the block, whoever makes it."""
    make = asyncpg.Connection.__init__

    def listened(self: Any, protocol: Any, transport: Any, *args: Any) -> None:
        transport.set_protocol(Listening(protocol, cost))
        make(self, protocol, transport, *args)

    with patch.object(asyncpg.Connection, "__init__", listened):
        yield


class Listening:
    """Counts the rows in what PostgreSQL sends, and hands it on to asyncpg."""

    def __init__(self, protocol: Any, cost: Cost) -> None:
        self._cost, self._rows, self._rest = cost, 0, bytearray()
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
            if kind in (b"D", b"d"):  # a row; a row of COPY
                self._rows += 1
                self._cost.rows = max(self._cost.rows, self._rows)
            elif kind in (b"C", b"s"):  # that is all; that is all of this batch
                self._rows = 0
            at = end
        del self._rest[:at]
        self._protocol.data_received(data)
