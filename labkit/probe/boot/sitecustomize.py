"""Python imports this at the start of a child of `python -m labkit.probe`: it is watched, too."""

import _thread
import importlib
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _here]
_this = sys.modules.pop("sitecustomize")
try:
    importlib.import_module("sitecustomize")  # the environment's own, which this one hides
except ImportError:
    sys.modules["sitecustomize"] = _this

# A subinterpreter, which Python prepares as it does a process, may have no such thread.
_may = getattr(_thread, "daemon_threads_allowed", lambda: True)()
if "LABKIT_PROBE" in os.environ and _may:
    try:
        from labkit.probe.program import watch_every_loop

        watch_every_loop()
    except (Exception, SystemExit) as error:  # as with another Python, or without labkit
        if sys.stderr:
            print(f"labkit.probe: process {os.getpid()} is not watched: {error}", file=sys.stderr)
