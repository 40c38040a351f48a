"""Watch a process that is running already: a script is sent into it, and takes itself out again.

Python 3.14 and later can be asked to run a script at the next safe point (`sys.remote_exec`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from labkit.errors import LabError

# Runs in the other process. The work is done on a thread of its own, so that its loop is not held
# by an import; what it imported is forgotten afterwards.
_SCRIPT = """
def _labkit_probe():
    import asyncio, json, os, sys, threading, time, types
    answer, seconds, threshold = {answer!r}, {seconds!r}, {threshold!r}

    def running():
        for frame in sys._current_frames().values():
            while frame is not None:
                if frame.f_code.co_name == "run_forever" and "self" in frame.f_locals:
                    yield frame.f_locals["self"]
                frame = frame.f_back

    loops = [loop for loop in [asyncio._get_running_loop(), *running()] if loop is not None]
    loops = list(dict.fromkeys(loops))

    def watch():
        before = set(sys.modules)
        try:
            if "labkit" not in sys.modules:  # the probe alone, without what notebooks need
                sys.modules["labkit"] = types.ModuleType("labkit")
                sys.modules["labkit"].__path__ = [{package!r}]
            from labkit.probe import Probe
            found = [(loop, Probe(threshold)) for loop in loops]
            for loop, probe in found:
                loop.call_soon_threadsafe(probe.__enter__)
            time.sleep(seconds)
            for loop, probe in found:
                left = threading.Event()
                loop.call_soon_threadsafe(lambda: (probe.__exit__(None, None, None), left.set()))
                left.wait(5)
            result = [probe.summary().as_dict() for _, probe in found]
        except BaseException as error:
            result = repr(error)
        finally:
            for name in set(sys.modules) - before:
                if name.partition(".")[0] == "labkit":
                    del sys.modules[name]
        with open(answer + ".new", "w") as file:
            json.dump(result, file)
        os.replace(answer + ".new", answer)

    threading.Thread(target=watch, name="labkit-probe-attached", daemon=True).start()

_labkit_probe()
del _labkit_probe
"""


def attach(pid: int, seconds: float, threshold_ms: float) -> dict[str, Any]:
    """Watch the loop of a running process for some seconds, and return the summary as dicts.

    Raises:
        LabError: There is no such process, its Python is another or forbids it, this user may
            not, no loop runs there, or it came to no safe point.
    """
    if not hasattr(sys, "remote_exec"):
        raise LabError(
            f"attach needs Python 3.14 or later on both sides; this is {sys.version.split()[0]}. "
            "With an older one, start the program by `python -m labkit.probe -m MODULE`."
        )
    with tempfile.TemporaryDirectory(prefix="labkit-probe-") as folder:
        os.chmod(folder, 0o777)  # the process may be another user's
        script, answer = Path(folder, "enter.py"), Path(folder, "answer.json")
        package = str(Path(__file__).resolve().parents[1])
        settings = {"answer": str(answer), "seconds": seconds, "threshold": threshold_ms}
        script.write_text(_SCRIPT.format(package=package, **settings))
        script.chmod(0o644)
        try:
            if os.name == "posix":  # elsewhere, it would end it
                os.kill(pid, 0)
            sys.remote_exec(pid, str(script))
        except ProcessLookupError:
            raise LabError(f"There is no process {pid}. Expected the pid of a Python.") from None
        except PermissionError:
            raise LabError(
                f"This user may not look into process {pid}. Be its user or root; on Linux, "
                "kernel.yama.ptrace_scope or a container may forbid it (CAP_SYS_PTRACE)."
            ) from None
        except (RuntimeError, OSError, ValueError) as error:
            raise LabError(
                f"Process {pid} cannot be entered: {error}. Expected: the same version of Python "
                f"as this one ({sys.version.split()[0]}), with remote debugging not switched off "
                "(PYTHON_DISABLE_REMOTE_DEBUG, -X disable-remote-debug)."
            ) from None
        until = time.monotonic() + seconds + 10
        while not answer.exists():
            if time.monotonic() > until:
                raise LabError(
                    f"Process {pid} did not answer: its main thread came to no Python code in "
                    f"{seconds + 10:.0f} s. It waits in C code, perhaps for its loop's next event."
                )
            time.sleep(0.05)
        found = json.loads(answer.read_text())
    if isinstance(found, str):
        raise LabError(f"The probe failed in process {pid}: {found}")
    if not found:
        raise LabError(f"No event loop runs in process {pid}. Expected a running asyncio program.")
    return {**found[0], "pid": pid}
