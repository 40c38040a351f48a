"""Watch a process that is running already: a script is sent into it, and takes itself out again.

Python 3.14 and later can be asked to run a script at the next safe point (`sys.remote_exec`).
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.probe.summary import Summary
from labkit.probe.watch import Probe, refuse_where_no_look_is_possible

# Runs in the other process, in a namespace of its own. The work is done on a thread, so that its
# loop is not held by an import; what was imported of labkit is forgotten afterwards.
_SCRIPT = """
import asyncio, contextlib, json, sys, threading, types

def watch(loop):
    before = set(sys.modules)
    try:
        if "labkit" not in sys.modules:  # the probe alone, without what notebooks need
            sys.modules["labkit"] = types.ModuleType("labkit")
            sys.modules["labkit"].__path__ = [{package!a}]
        from labkit.probe.attach import watch_loops
        result = watch_loops(loop, {seconds!r}, {threshold_ms!r})
    except BaseException as error:
        result = str(error) or repr(error)
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "labkit":
            del sys.modules[name]
    with contextlib.suppress(OSError), open({answer!a}, "r+") as file:
        file.write(json.dumps(result) + "\\n")

here = asyncio._get_running_loop()
threading.Thread(target=watch, args=(here,), name="labkit-probe-attached", daemon=True).start()
"""


def attach(pid: int, seconds: float, threshold_ms: float) -> list[dict[str, Any]]:
    """Watch the loops of a running process for some seconds; the summary of each, as JSON has it.

    Raises:
        LabError: There is no such process, its Python is another or forbids it, this user may
            not, no loop runs there, or it came to no safe point.
    """
    python = sys.version.split()[0]
    if not hasattr(sys, "remote_exec"):
        raise LabError(
            f"attach needs Python 3.14 or later on both sides; this is {python}. With an older "
            "one, start the program by `python -m labkit.probe -m MODULE`."
        )
    with tempfile.TemporaryDirectory(prefix="labkit-probe-") as folder:
        script, answer = Path(folder, "enter.py"), Path(folder, "answer.json")
        package = str(Path(__file__).resolve().parents[1])
        settings = {"answer": str(answer), "seconds": seconds, "threshold_ms": threshold_ms}
        script.write_text(_SCRIPT.format(package=package, **settings), "utf-8")
        answer.touch()
        for path, mode in (folder, 0o755), (script, 0o644), (answer, 0o666):
            os.chmod(path, mode)  # the process may be another user's
        try:
            if os.name == "posix":  # on Windows, this ends it
                os.kill(pid, 0)
            sys.remote_exec(pid, str(script))
        except (ProcessLookupError, OverflowError):
            raise LabError(f"There is no process {pid}. Expected the pid of a Python.") from None
        except (OSError, RuntimeError, ValueError) as error:
            raise LabError(
                f"Process {pid} cannot be entered: {error}. Expected: a process that this "
                "user may trace (root may; on Linux its own user, too, if kernel.yama.ptrace_scope "
                "is 0; in a container, CAP_SYS_PTRACE is needed), whose Python is of this "
                f"one's version ({python}) and runs without -X disable-remote-debug and "
                "PYTHON_DISABLE_REMOTE_DEBUG."
            ) from None
        until = time.monotonic() + seconds + 10
        while not (text := answer.read_text()).endswith("\n"):
            if time.monotonic() > until:
                raise LabError(
                    f"Process {pid} did not answer in {seconds + 10:.0f} s: it has ended, or its "
                    "main thread is in C code, perhaps waiting for its loop's next event (when it "
                    "comes, Python may print there that it cannot open the script); or it cannot "
                    f"see {folder}, as in a container."
                )
            time.sleep(0.05)
    found = json.loads(text)
    if isinstance(found, str):
        raise LabError(f"In process {pid}: {found}")
    return [{"pid": pid, **one} for one in found]


def watch_loops(
    main_loop: asyncio.AbstractEventLoop | None, seconds: float, threshold_ms: float
) -> list[Summary]:
    """In the other process: watch this loop, and those that other threads run.

    Raises:
        LabError: No loop runs, or one is being watched already; or Python runs without its lock.
    """
    refuse_where_no_look_is_possible()
    loops = {main_loop} - {None}
    caller: Any  # None after each thread: nobody's frames are kept alive
    for caller in sys._current_frames().values():
        while caller is not None:
            if caller.f_code.co_name == "run_forever":
                loops.add(caller.f_locals.get("self"))
            caller = caller.f_back

    async def watch() -> Summary:
        with Probe(threshold_ms) as probe:
            await asyncio.sleep(seconds)
        return probe.summary()

    running = [loop for loop in loops if isinstance(loop, asyncio.AbstractEventLoop)]
    if not running:
        raise LabError(
            "No event loop was found. Expected a running one. (One of uvloop's is found only in "
            "the main thread.)"
        )
    watching = [asyncio.run_coroutine_threadsafe(watch(), loop) for loop in running]
    try:
        return [each.result(seconds + 5) for each in watching]
    except TimeoutError:
        raise LabError(
            f"A loop was held for all of {seconds + 5:.0f} s, so nothing could enter it. "
            f"`py-spy dump --pid {os.getpid()}` says where."
        ) from None
    finally:
        for each in watching:
            each.cancel()
