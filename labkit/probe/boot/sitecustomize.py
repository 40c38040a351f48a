"""Python imports this at the start of a child of `python -m labkit.probe`: it is watched, too."""

from __future__ import annotations

import _thread
import importlib.machinery
import os
import sys

TYPE_CHECKING = False  # as typing's; what this imports, each child pays for
if TYPE_CHECKING:
    from typing import Any

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _here]
_this = sys.modules.pop("sitecustomize")
try:
    importlib.import_module("sitecustomize")  # the environment's own, which this one hides
except ImportError:
    sys.modules["sitecustomize"] = _this


class _WhenAsyncioIsImported:
    """Watches from then on: a child without it has no loop, and pays nothing."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "asyncio":
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:  # as where a program brings an importer of its own
            return None
        execute = spec.loader.exec_module

        def and_watch(module: Any) -> None:
            execute(module)
            _watch()

        spec.loader.exec_module = and_watch
        return spec


def _watch() -> None:
    try:
        from labkit.probe.program import watch_every_loop

        watch_every_loop()
    except (Exception, SystemExit) as error:  # as with another Python, or without labkit
        if sys.stderr:
            print(f"labkit.probe: process {os.getpid()} is not watched: {error}", file=sys.stderr)


# A subinterpreter, which Python prepares as it does a process, may have no such thread.
if "LABKIT_PROBE" in os.environ and getattr(_thread, "daemon_threads_allowed", lambda: True)():
    if "asyncio" in sys.modules:
        _watch()
    else:
        sys.meta_path.insert(0, _WhenAsyncioIsImported())
