"""The command line: `python -m labkit.probe [options] -m MODULE ...`, `attach PID`, `why`."""

import argparse
import atexit
import builtins
import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import pkgutil
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import types
from functools import partial
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.probe.attach import attach
from labkit.probe.program import say, watch_every_loop
from labkit.probe.stall import ADVICE
from labkit.probe.summary import Summary
from labkit.probe.watch import Probe, refuse_where_no_look_is_possible

_ENDS = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
_GRACE = 3.0  # s; without the probe, a signal would have ended the program at once
_USAGE = """python -m labkit.probe [--threshold-ms 50] [--json FILE] -m MODULE|SCRIPT [ARGUMENT ...]
       python -m labkit.probe attach PID [--seconds 30] [--threshold-ms 50] [--json FILE]
       python -m labkit.probe why [CAUSE]"""


def main() -> None:
    """Run a program, watch one that runs already, or print what to do about each cause."""
    if sys.argv[1:2] == ["why"]:
        asked = " ".join(sys.argv[2:])
        for cause in [cause for cause in ADVICE if asked in cause] or ADVICE:
            page = f"notebooks/CHEATSHEET.md#{cause.replace(' ', '-')}"  # it is not taken along
            print(f"{cause}:\n{ADVICE[cause]}\n(In the stall workbook: {page})\n")
        return
    parser = argparse.ArgumentParser("labkit.probe", usage=_USAGE)
    parser.add_argument("--threshold-ms", type=float, default=50.0, help="what counts as a stall")
    parser.add_argument("--json", type=os.path.abspath, help="write the summaries there, too")
    attaching = sys.argv[1:2] == ["attach"]
    if attaching:
        parser.add_argument("pid", type=int)
        parser.add_argument("--seconds", type=seconds, default=30.0, help="for so long")
    else:
        parser.add_argument("-m", dest="module", action="store_true", help="a module, not a script")
        parser.add_argument("program", nargs=argparse.PARSER)
    options = parser.parse_args(sys.argv[1 + attaching :])
    try:
        Probe(options.threshold_ms)  # refuses what is no threshold
        if not attaching:
            refuse_where_no_look_is_possible()
        if options.json:
            open(options.json, "a").close()  # now, not after an hour, it must be known to work
        if attaching:
            for number in _ENDS:  # as Ctrl-C: nothing is to stay in the other process
                signal.signal(number, signal.default_int_handler)
            found, why_not = attach(options.pid, options.seconds, options.threshold_ms)
            for reason in why_not:
                say(f"labkit.probe: a loop of process {options.pid} is left out. {reason}")
            sys.exit(0 if _report(found, options.json) else 2)
        del options.program[: options.program[0] == "--"]  # which some Pythons leave there
        name, find = options.program[0], importlib.util.find_spec
        # Not its parts: to find them would run the program's code, unwatched.
        there = find(name.partition(".")[0]) if options.module else os.path.exists(name)
        if not there:
            raise LabError(f"There is no {name!r}. Expected: -m MODULE, or the path of a script.")
        folder = tempfile.mkdtemp(prefix="labkit-probe-")
    except KeyboardInterrupt:
        parser.exit(130)
    except (LabError, OSError, ImportError) as error:
        parser.exit(2, f"labkit.probe: {error}\n")
    _run(options, folder)


def seconds(text: str) -> float:
    """For how long to stay, from the command line."""
    if not 0 < (asked := float(text)) < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text} s; expected a number above 0, of seconds")
    return asked


def _run(options: argparse.Namespace, folder: str) -> None:
    """Run the program as Python would, with every loop watched; the summary comes at the end."""
    pid, received = os.getpid(), list[int]()

    def report() -> None:
        if os.getpid() == pid:  # a forked child comes here, too
            found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
            shutil.rmtree(folder, ignore_errors=True)
            _report(found, options.json)

    def leave() -> None:
        report()
        for number in received:  # as without the probe: who waits for this process is told so
            if os.getpid() == pid and signal.getsignal(number) == end:
                with contextlib.suppress(AttributeError, OSError, ValueError):
                    sys.stdout.flush()
                signal.signal(number, signal.SIG_DFL)
                os.kill(pid, number)

    def give_up(status: int) -> None:  # a thread of the program's goes on
        report()
        os._exit(status)

    def end(number: int, _: object) -> None:
        last = threading.Timer(_GRACE, give_up, [128 + number])
        last.daemon = True
        last.start()
        received.append(number)
        raise SystemExit(128 + number)

    def replace(number: int, old: object, new: Any) -> None:
        if signal.getsignal(number) == old:
            signal.signal(number, new)

    atexit.register(leave)  # by then, the program's threads and children have ended
    for number in _ENDS:
        replace(number, signal.SIG_DFL, end)
        if hasattr(os, "register_at_fork"):  # a child ends at once, even while it is in C code
            os.register_at_fork(after_in_child=partial(replace, number, end, signal.SIG_DFL))
    # Child processes are watched, too: each has `boot` on its path, and the same settings.
    paths = [str(Path(__file__).with_name("boot")), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ["LABKIT_PROBE"] = f"{options.threshold_ms:g} {folder}"
    watch_every_loop()
    sys.argv = options.program
    try:
        _run_as_main(options.module)
    except (Exception, KeyboardInterrupt) as error:
        # Shown as Python would: without the frames from here to the program.
        trace, ours = error.__traceback__, (__file__, runpy.run_path.__code__.co_filename)
        while trace and trace.tb_frame.f_code.co_filename in ours:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        sys.excepthook = lambda *_: None  # for what is shown now; Python ends as it does after it
        raise


def _run_as_main(module: bool) -> None:
    """Run what `sys.argv` names as `__main__`, and leave it there: what outlives it may pickle."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    as_main = runpy._run_module_as_main  # type: ignore[attr-defined]  # what Python itself calls
    script = os.path.abspath(sys.argv[0])
    if module:
        as_main(sys.argv[0])
    elif pkgutil.get_importer(script):  # a folder, or a zip file
        sys.path[: not sys.flags.safe_path] = [script]
        as_main("__main__", alter_argv=False)
    else:
        if not sys.flags.safe_path:
            sys.path[0] = os.path.dirname(os.path.realpath(script))
        loader = importlib.machinery.SourceFileLoader("__main__", script)
        vars(main).update(__builtins__=builtins, __file__=script, __loader__=loader)
        with io.open_code(script) as file:
            code = pkgutil.read_code(file)  # if it is compiled
            if code is None:
                file.seek(0)
                code = compile(file.read(), script, "exec", dont_inherit=True)
        exec(code, vars(main))


def _report(found: list[dict[str, Any]], file: str | None) -> bool:
    """Write the file, then print; whether it could be written."""
    written = True
    try:
        if file:
            Path(file).write_text(json.dumps(found, indent=1) + "\n")
    except OSError as error:
        written = False
        say(
            f"labkit.probe: {file} could not be written: {error.strerror}. Expected: a folder that "
            "is still there, and room on its disk. Take what is printed here, or run it again."
        )
    for one in found:
        say(f"\nprocess {one['pid']}:\n{Summary(one)}")
    if not found:
        say("labkit.probe: no event loop was watched to its end, and no stall was seen.")
    return written


if __name__ == "__main__":
    main()
