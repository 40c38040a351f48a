"""Python imports this at the start of a child of `python -m labkit.probe`: it is watched, too."""

import importlib.machinery
import importlib.util
import os
import sys

# The environment's own sitecustomize, which this one hides.
_here = os.path.dirname(os.path.abspath(__file__))
_paths = [path for path in sys.path if os.path.abspath(path or ".") != _here]
_spec = importlib.machinery.PathFinder.find_spec("sitecustomize", _paths)
if _spec is not None and _spec.loader is not None:
    _spec.loader.exec_module(importlib.util.module_from_spec(_spec))

if "LABKIT_PROBE" in os.environ:
    try:
        from labkit.probe.program import watch_every_loop

        _threshold, _, _folder = os.environ["LABKIT_PROBE"].partition(" ")
        watch_every_loop(float(_threshold), _folder)
    except Exception as error:  # a child with another Python, or without labkit: not watched
        print(f"labkit.probe: process {os.getpid()} is not watched: {error}", file=sys.stderr)
