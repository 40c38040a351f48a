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
from labkit.probe.selftest import THREAD


def share(threshold_ms: float, folder: str) -> None:
    """Have child processes watched, too."""
    os.environ["LABKIT_PROBE"] = f"{threshold_ms:g} {folder}"
    paths = [str(Path(__file__).with_name("boot")), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def watch_every_loop(threshold_ms: float, folder: str) -> None:
    """From here on, each loop that begins to run in this process is watched while it runs."""
    original = events._set_running_loop
    probes: dict[tuple[int, int], watch.Probe] = {}  # a forked child inherits its parent's

    def set_running_loop(loop: AbstractEventLoop | None) -> None:
        original(loop)
        key = os.getpid(), threading.get_ident()
        if loop is None and key in probes:
            probe = probes.pop(key)
            with contextlib.suppress(Exception):  # the program must run all the same
                probe.__exit__(None, None, None)
                _write(folder, probe)
        elif loop is not None and key not in probes and not _tests_itself():
            probe = watch.Probe(threshold_ms, on_stall=lambda _: _write(folder, probe))
            probe._teller.write = _print
            try:
                probes[key] = probe.__enter__()
            except Exception as error:
                _print(0, f"a loop is not watched: {error}")
            watch._watched.discard(loop)  # the program may have a probe of its own

    for module in sys.modules["asyncio"], events:
        module._set_running_loop = set_running_loop  # type: ignore[attr-defined]


def _tests_itself() -> bool:
    return threading.current_thread().name == THREAD


def _print(level: int, text: str, error: Any = None) -> None:
    """Print to stderr, whatever the program does to logging."""
    reason = f": {error[1]!r}" if error else ""
    print(f"labkit.probe[{os.getpid()}]: {text}{reason}", file=sys.stderr, flush=True)


def _write(folder: str, probe: watch.Probe) -> None:
    """Keep what a probe has seen so far where the parent finds it, however this process ends."""
    found = probe.summary()
    if found["seconds"] < 1 and not found["stalls"]:
        return  # asyncio.run() runs its loop three times; what closes it is of no interest
    name = Path(folder, f"{os.getpid()}-{id(probe):x}")
    with contextlib.suppress(OSError):  # the parent is gone, and its folder with it
        new = name.with_suffix(f".{threading.get_ident()}")
        new.write_text(json.dumps({"pid": os.getpid(), **found}))
        new.replace(name.with_suffix(".json"))
