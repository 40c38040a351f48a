"""Watch every loop of a whole program, in every thread and in the processes that it starts.

A loop tells asyncio when it begins to run and when it stops: there a probe enters and leaves. Child
processes find the same settings in their environment (the folder `boot` on their import path).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from asyncio import AbstractEventLoop, events
from pathlib import Path
from typing import Any

from labkit.probe import watch
from labkit.probe.log import Teller


def share(threshold_ms: float, folder: str) -> None:
    """Have child processes watched, too."""
    os.environ["LABKIT_PROBE"] = f"{threshold_ms:g} {folder}"
    paths = [str(Path(__file__).with_name("boot")), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def watch_every_loop(threshold_ms: float, folder: str) -> None:
    """From here on, each loop that begins to run in this process is watched while it runs.

    A thread has one probe for all loops that it runs, and a process one log: `asyncio.run()` alone
    runs its loop three times. A forked child has its parent's, too, and leaves them alone.
    """
    original = events._set_running_loop
    probes: dict[tuple[int, int], watch.Probe] = {}
    printers: dict[int, _Printer] = {}

    def save(_: object = None) -> None:  # where the parent finds it, however this process ends
        for (pid, thread), probe in list(probes.items()):
            if pid == os.getpid() and probe._timer.entered:
                new = Path(folder, f"{pid}-{thread}.{threading.get_ident()}")
                with contextlib.suppress(OSError):  # the parent is gone, and its folder with it
                    new.write_text(json.dumps({"pid": pid, **probe.summary()}))
                    new.replace(new.with_suffix(".json"))

    def set_running_loop(loop: AbstractEventLoop | None) -> None:
        original(loop)
        key = os.getpid(), threading.get_ident()
        probe = probes.get(key)
        if probe is not None and probe._sampler is not None:
            if loop is None:
                with contextlib.suppress(Exception):  # the program must run all the same
                    probe.__exit__(None, None, None)
                    save()
        elif loop is not None:
            if probe is None:
                probe = probes[key] = watch.Probe(threshold_ms)
                probe._teller = printers.setdefault(os.getpid(), _Printer(save))
            try:
                probe.__enter__()
            except Exception as error:
                probe._teller.warn(f"a loop is not watched: {error}")
            watch._watched.discard(loop)  # the program may have a probe of its own

    for module in sys.modules["asyncio"], events:
        module._set_running_loop = set_running_loop  # type: ignore[attr-defined]


class _Printer(Teller):
    """Prints to stderr, whatever the program does to logging, until the process ends."""

    def write(self, level: int, text: str, error: Any = None) -> None:
        reason = f": {error[1]!r}" if error else ""
        line = f"labkit.probe[{os.getpid()}]: {text}{reason}\n"  # in one piece: others print, too
        print(line, end="", file=sys.stderr, flush=True)

    def close(self) -> Teller:
        return self
