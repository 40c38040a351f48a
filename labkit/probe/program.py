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

from labkit.probe.log import Teller
from labkit.probe.watch import Probe

SETTINGS = "LABKIT_PROBE"  # the threshold in ms, and the folder that gets the summaries
BOOT = str(Path(__file__).with_name("boot"))


class _Printer(Teller):
    """Prints to stderr, whatever the program does to logging."""

    def write(self, level: int, text: str, error: Any = None) -> None:
        print(f"labkit.probe[{os.getpid()}]: {text}", file=sys.stderr, flush=True)


def share(threshold_ms: float, folder: str) -> None:
    """Have child processes watched, too."""
    os.environ[SETTINGS] = f"{threshold_ms:g} {folder}"
    paths = [BOOT, os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))


def watch_every_loop(threshold_ms: float, folder: str) -> None:
    """From here on, each loop that begins to run in this process is watched while it runs."""
    original = events._set_running_loop
    watching = threading.local()

    def set_running_loop(loop: AbstractEventLoop | None) -> None:
        original(loop)
        probe: Probe | None = getattr(watching, "probe", None)
        if loop is None and probe is not None:
            watching.probe = None
            if probe._sampler is not None:  # it was entered
                probe.__exit__(None, None, None)
                _write(folder, probe)
        elif loop is not None and probe is None:
            watching.probe = Probe(threshold_ms, on_stall=lambda _: _write(folder, watched))
            watched = watching.probe
            watched._teller = _Printer(watched._teller.on_stall)
            loop.call_soon(_enter, watched)

    for module in sys.modules["asyncio"], events:
        module._set_running_loop = set_running_loop  # type: ignore[attr-defined]


def _enter(probe: Probe) -> None:
    with contextlib.suppress(Exception):
        probe.__enter__()


def _write(folder: str, probe: Probe) -> None:
    """Keep what a probe has seen so far where the parent finds it, however this process ends."""
    found = probe.summary().as_dict() | {"pid": os.getpid()}
    if found["seconds"] < 1 and not found["stalls"]:
        return  # asyncio.run() runs its loop thrice; what closes it is of no interest
    target = Path(folder) / f"{os.getpid()}-{id(probe):x}.json"
    with contextlib.suppress(OSError):  # the parent is gone, and its folder with it
        new = target.with_suffix(".new")
        new.write_text(json.dumps(found))
        new.replace(target)
