"""Watch a process that is running already: a script is sent into it, and takes itself out again.

Python 3.14 and later can be asked to run a script at the next safe point (`sys.remote_exec`).
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.probe.log import Teller
from labkit.probe.summary import Summary
from labkit.probe.watch import Probe, refuse_where_no_look_is_possible

# Runs in the other process, in a namespace of its own. The work is done on a thread, so that its
# loop is not held by an import; while it is being started, that thread waits for what it imports.
# What was imported of labkit is forgotten afterwards.
_SCRIPT = """
import _thread, sys

def watch(loop):
    before = set(sys.modules)
    try:
        import json, os, types
        if "labkit" not in sys.modules:  # the probe alone, without what notebooks need
            sys.modules["labkit"] = types.ModuleType("labkit")
            sys.modules["labkit"].__path__ = [{package!a}]
        from labkit.probe.attach import watch_loops
        wanted = lambda: os.path.exists({script!a})
        result = watch_loops(loop, {seconds!r}, {threshold_ms!r}, wanted)
    except BaseException as error:
        result = str(error) or repr(error)
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "labkit":
            del sys.modules[name]
    try:
        with open({answer!a}, "r+") as file:
            file.write(json.dumps(result) + "\\n")
    except OSError:  # nobody waits for it any more
        pass

def start(loop):
    import threading  # Python waits for such a thread, if the program ends meanwhile
    threading.Thread(target=watch, args=(loop,), name="labkit-probe-attached", daemon=False).start()

here = getattr(sys.modules.get("_asyncio"), "_get_running_loop", lambda: None)()
_thread.start_new_thread(start, (here,))
"""


def attach(pid: int, seconds: float, threshold_ms: float) -> tuple[list[dict[str, Any]], list[str]]:
    """Watch the loops of a running process for some seconds, or until Ctrl-C.

    Returns the summary of each loop, as JSON has it, and why others could not be watched.

    Raises:
        LabError: There is no such process, its Python is another or forbids it, this user may
            not, no loop runs there or none could be watched, or it came to no safe point.
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
        settings = {"package": package, "seconds": seconds, "threshold_ms": threshold_ms}
        text = _SCRIPT.format(script=str(script), answer=str(answer), **settings)
        script.write_text(text, "utf-8")
        answer.touch()
        for path, mode in (folder, 0o755), (script, 0o644), (answer, 0o666):
            os.chmod(path, mode)  # the process may be another user's
        try:
            _ask_for(pid)
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
            try:
                if time.monotonic() > until:
                    raise LabError(
                        f"Process {pid} did not answer: its main thread is in C code, perhaps "
                        "waiting for its loop's next event (when it comes, Python may print there "
                        "that it cannot open the script); or it had only just been started; or it "
                        f"cannot see {folder}, as in a container."
                    )
                time.sleep(0.05)
                _ask_for(pid)
            except KeyboardInterrupt:
                if not script.exists():  # it is the second
                    raise
                script.unlink()  # there, it is looked for ten times a second
                until = min(until, time.monotonic() + 5)
            except ProcessLookupError:
                if not answer.read_text():
                    raise LabError(f"Process {pid} ended before it could answer.") from None
    result = json.loads(text)
    if isinstance(result, str):
        user = f" Its user has to be able to read {package}." if "'labkit" in result else ""
        raise LabError(f"In process {pid}: {result}{user}")
    found, why_not = result
    return [{"pid": pid, **one} for one in found], why_not


def _ask_for(pid: int) -> None:
    if os.name == "posix":  # on Windows, this would end it
        os.kill(pid, 0)


class _Silent(Teller):
    """Writes nothing into the log of a program that has not asked for it."""

    def write(self, level: int, text: str, error: Any = None) -> None:
        pass


def watch_loops(
    main_loop: AbstractEventLoop | None,
    seconds: float,
    threshold_ms: float,
    wanted: Callable[[], bool] = lambda: True,
) -> tuple[list[Summary], list[str]]:
    """In the other process: watch this loop, and those that other threads run.

    It ends after some seconds, or when nobody has `wanted` it any more, or with the loops, or the
    program. Returns the summary of each loop, and why others could not be watched.

    Raises:
        LabError: No loop runs, or none could be watched; or Python runs without its lock.
    """
    refuse_where_no_look_is_possible()
    probes = [(loop, Probe(threshold_ms)) for loop in _loops_that_run(main_loop)]
    if not probes:
        raise LabError(
            "No event loop was found. Expected a running one. (One of uvloop's is found only in "
            "the main thread.)"
        )
    began, over, lock = time.monotonic(), False, threading.Lock()
    entered, why_not = list[Probe](), dict[Probe, str]()

    def enter(probe: Probe) -> None:  # on the loop's own thread
        with lock:
            if over:
                return
            probe._teller = _Silent()
            try:
                entered.append(probe.__enter__())
            except LabError as error:
                why_not[probe] = str(error)

    for loop, probe in probes:
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(enter, probe)
    while (
        time.monotonic() - began < seconds
        and wanted()
        and threading.main_thread().is_alive()
        and not all(loop.is_closed() for loop, _ in probes)
    ):
        time.sleep(min(0.1, seconds))
        for loop, probe in probes:
            if loop.is_closed():
                probe.__exit__()
    with lock:
        over = True
    held = (
        f"A loop was held for all of {time.monotonic() - began:.1f} s, so nothing could enter it. "
        f"`py-spy dump --pid {os.getpid()}` says where."
    )
    for loop, probe in probes:
        probe.__exit__()
        if probe not in entered and not loop.is_closed():
            why_not.setdefault(probe, held)
    if not entered:
        raise LabError(" ".join(why_not.values()) or "Its loop ended before it could be watched.")
    return [probe.summary() for probe in entered], list(why_not.values())


def _loops_that_run(main_loop: AbstractEventLoop | None) -> list[AbstractEventLoop]:
    loops = [main_loop] if main_loop is not None else []
    caller: Any  # None after each thread: nobody's frames are kept alive
    for caller in sys._current_frames().values():
        while caller is not None:
            if caller.f_code.co_name == "run_forever":
                loop = caller.f_locals.get("self")
                if isinstance(loop, AbstractEventLoop) and all(loop is not one for one in loops):
                    loops.append(loop)
            caller = caller.f_back
    return loops
