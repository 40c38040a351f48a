"""Frames: a thread's stack as plain lines, and which of those lines are the user's own."""

from __future__ import annotations

import gc
import os
import sys
import sysconfig
import threading
from functools import lru_cache
from types import CodeType, FrameType
from typing import NamedTuple

_LABKIT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PATHS = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_RUN_A_LOOP = {"run_forever", "run_until_complete", "_run_once"}


class Frame(NamedTuple):
    """One line of a stack."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Without directories: they say more about a machine than about a bug."""
        return f"{_label(self.file)}:{self.line} in {self.function}"


Stack = tuple[Frame, ...]  # outermost first
_frame = lru_cache(4096)(Frame)  # a long stall looks at the same lines thousands of times
_walking = threading.RLock()


def walk(frame: FrameType | None, until: CodeType | None = None) -> Stack:
    """A frame and its callers, outermost first; only what was called by the code `until`."""
    frames = []
    # In Python 3.11 `f_back` makes an object, which may start a collection. The thread that is
    # looked at could run meanwhile, its frames would be gone, and the interpreter would crash.
    with _walking:  # otherwise the first thread to finish would switch collection back on
        collecting = sys.version_info < (3, 12) and gc.isenabled()
        if collecting:
            gc.disable()
        try:
            while frame is not None and frame.f_code is not until:
                code = frame.f_code
                frames.append(_frame(code.co_filename, frame.f_lineno or 0, code.co_name))
                frame = frame.f_back
        finally:
            if collecting:
                gc.enable()
    return tuple(reversed(frames))


def users_frame(stack: Stack) -> Frame | None:
    """The innermost frame that is the user's own; else, the innermost that is not labkit's.

    What called the loop is not looked at: `asyncio.run(main())` is no line that holds it.
    """
    runs = [i for i, f in enumerate(stack) if f.function in _RUN_A_LOOP and is_library(f.file)]
    inside = stack[runs[-1] + 1 :] if runs else stack
    others = [frame for frame in reversed(inside) if not _below(frame.file, _LABKIT)]
    users = [frame for frame in others if not is_library(frame.file)]
    # Code that was generated, as a dataclass's __init__ is, has no file: rather its caller.
    written = [frame for frame in users if not frame.file.startswith("<")]
    return next(iter(written or users or others), None)


def is_users(frame: Frame | None) -> bool:
    """Whether a line is in the user's own code."""
    return frame is not None and not is_library(frame.file)


@lru_cache(4096)
def is_library(file: str) -> bool:
    """Whether a file belongs to Python, to an installed package, or to labkit."""
    parts = file.replace("\\", "/").split("/")
    return (
        file.startswith("<frozen")
        or "site-packages" in parts
        or "dist-packages" in parts
        or any(_below(file, path) for path in (*_PATHS, _LABKIT))
    )


def _below(file: str, directory: str) -> bool:
    """Whether a file is in a directory: `labkit_service.py` is not in `labkit`."""
    file, directory = os.path.normcase(file), os.path.normcase(directory)
    return file.startswith(os.path.join(directory, ""))


def _label(file: str) -> str:
    """A file's name; for a notebook's cell, which has a file in name only, its number."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    cell = shell.compile.format_code_name(file) if shell else None
    return " ".join(cell) if cell else os.path.basename(file)
