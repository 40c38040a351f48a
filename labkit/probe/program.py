"""Watch every loop of a whole program, in every thread and in the processes that it starts.

A loop tells asyncio when it begins to run and when it stops: there a probe enters and leaves. Child
processes find the same settings in their environment (the folder `boot` on their import path).
"""

import asyncio
import contextlib
import io
import json
import os
import sys
import threading
from asyncio import AbstractEventLoop, events
from pathlib import Path
from typing import Any

from labkit.probe import watch
from labkit.probe.log import Teller


def watch_every_loop() -> None:
    """From here on, each loop that begins to run in this process is watched while it runs.

    A thread has one probe for all loops that it runs, and a process one log: `asyncio.run()` alone
    runs its loop three times. A forked child has its parent's, too, and leaves them alone.
    """
    threshold, _, folder = os.environ["LABKIT_PROBE"].partition(" ")
    original = events._set_running_loop
    probes: dict[tuple[int, int], watch.Probe] = {}  # by process and thread
    printers: dict[int, _Printer] = {}
    told = set[str]()  # one program may start a thousand loops

    def save(key: tuple[int, int]) -> None:  # where the parent finds it, however this process ends
        new = Path(folder, "{}-{}.{}".format(*key, threading.get_ident()))
        with contextlib.suppress(OSError):  # the parent is gone, and its folder with it
            new.write_text(json.dumps({"pid": key[0], **probes[key].summary()}))
            new.replace(new.with_suffix(".json"))

    def save_those_that_run(_: object) -> None:
        for key, probe in list(probes.items()):
            if key[0] == os.getpid() and probe._sampler is not None:
                save(key)

    def set_running_loop(loop: AbstractEventLoop | None) -> None:
        original(loop)
        pid = os.getpid()
        key = pid, threading.get_ident()
        probe = probes.get(key)
        if probe is None and loop is not None:
            probe = probes[key] = watch.Probe(float(threshold))
            probe._teller = printers.setdefault(pid, _Printer(save_those_that_run))
        if probe is None or (loop is None) == (probe._sampler is None):  # left already, or entered
            return
        try:
            if loop is None:
                probe.__exit__(None, None, None)
                save(key)
            else:
                probe.__enter__()
                # Who calls this runs the loop: one without a selector tells at its first beat only.
                probe._timer._engine = sys._getframe(1).f_code
                watch._watched.discard(loop)  # the program may have a probe of its own
        except Exception as error:  # the program must run all the same
            if (text := f"a loop is not watched: {error}") not in told:
                told.add(text)
                probe._teller.warn(text)

    asyncio._set_running_loop = events._set_running_loop = set_running_loop


def _open_stderr() -> io.TextIOWrapper | None:
    if sys.__stderr__ is None:  # closed; by now, its number may be that of another file
        return None
    file = os.fdopen(os.dup(2), "wb", buffering=0, closefd=False)
    return io.TextIOWrapper(file, sys.__stderr__.encoding, "backslashreplace", write_through=True)


_stderr = _open_stderr()  # before the program points it, or its number, elsewhere
_same = _stderr and os.fstat(_stderr.fileno())


def say(text: str) -> None:
    """Print to what was stderr at first, in one piece: others print, too. If it is gone, do not."""
    with contextlib.suppress(OSError):
        # A daemon closes what numbers it finds: its next file may have this one.
        if _stderr and _same and os.path.samestat(_same, os.fstat(_stderr.fileno())):
            _stderr.write(f"{text}\n")


class _Printer(Teller):
    """Prints to stderr, whatever the program does to it or to logging, until the process ends."""

    def write(self, level: int, text: str, error: Any = None) -> None:
        reason = f": {error[1]!r}" if error else ""
        say(f"labkit.probe[{os.getpid()}]: {text}{reason}")

    def close(self) -> Teller:
        return self
