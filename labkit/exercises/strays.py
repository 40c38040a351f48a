"""Whose loop: what asyncpg opened on one loop must not be used on another."""

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from labkit.exercises.progress import notebooks
from labkit.probe import Frame, users_frame
from labkit.probe.frames import is_users


@contextmanager
def strays_refused() -> Iterator[list[str]]:
    """Refuse each use of a pool, or a connection, on another loop than its own, and note it.

    asyncpg does not look: two threads are then at work in one connection, in C, and the process may
    die. `Pool._acquire` is where all that a pool is asked for begins, on the loop that awaits it.
    `Connection._check_open` is where what a connection is asked for begins.
    """
    import asyncpg  # here, so that who takes the probe home need not have it

    noted = list[str]()

    def on_its_loop(what: str, owner: type, name: str) -> Any:
        use: Callable[..., Any] = getattr(owner, name)

        def use_or_refuse(self: Any, *args: Any) -> Any:
            running = asyncio._get_running_loop()
            if running is not None and running is not self._loop:
                at = answers_frame(traceback.extract_stack(sys._getframe(1)))
                where = f"at {at}, " if is_users(at) else ""
                noted.append(
                    f"your answer used {what} on another loop than the one that opened it: "
                    f"{where}in the thread {threading.current_thread().name!r}. Pools and "
                    f"connections belong to one loop; used on another, they can end the whole "
                    f"process, so the check refused. Await them on the loop that calls your "
                    f"answer, and send to a thread only what needs neither."
                )
                raise asyncpg.InterfaceError(f"{what} of another loop's")
            return use(self, *args)

        return patch.object(owner, name, use_or_refuse)

    with (
        on_its_loop("a pool", asyncpg.Pool, "_acquire"),
        on_its_loop("a connection", asyncpg.Connection, "_check_open"),
    ):
        yield noted


def answers_frame(trace: Iterable[traceback.FrameSummary]) -> Frame | None:
    """The innermost line of an answer's own: not asyncpg's, and not the check's."""
    # asyncpg is compiled, and gives its frames a file's name that is in no directory.
    others = ("asyncpg/", "asyncpg\\", str(notebooks() / "exercises"))
    frames = (Frame(f.filename, f.lineno or 0, f.name) for f in trace)
    return users_frame(tuple(f for f in frames if not f.file.startswith(others)))
