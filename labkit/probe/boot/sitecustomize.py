"""Python imports this at the start of a child of `python -m labkit.probe`: it is watched, too."""

import contextlib
import importlib
import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _here]
_this = sys.modules.pop("sitecustomize")
with contextlib.suppress(ImportError):
    importlib.import_module("sitecustomize")  # the environment's own, which this one hides
sys.modules.setdefault("sitecustomize", _this)
try:
    importlib.import_module("labkit.probe.program").watch_every_loop()
except (Exception, SystemExit) as error:  # as with another Python, or without labkit
    print(f"labkit.probe: process {os.getpid()} is not watched: {error}", file=sys.stderr)
