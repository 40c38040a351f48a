"""The private server's directory ("home"): where it is, what it holds, and which locks guard it.

    kernels.lock     shared by all processes that use the server, until they exit, however they do
    supervisor.lock  held by the supervisor, until it exits
    server.lock      held by all that a supervisor has started, until they exit; not on Windows
    running.json     process ids and port, and the machine on which they mean something
    server/          password, log and data
    binaries-*/      a copy, where the server's user cannot reach the wheel's

Directories appear whole: they are made as new-*, and renamed when complete.
"""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import fasteners
import platformdirs
import psutil

from labkit.errors import LabError
from labkit.server.programs import IS_ROOT, run


def place() -> Path:
    """Return the server's directory, whether it is there or not; LabError as `directory`."""
    where = platformdirs.site_data_dir if IS_ROOT else platformdirs.user_data_dir
    return directory(where) / "postgresql"


def directory(default: Callable[..., str]) -> Path:
    """Return `LABKIT_HOME`, or if that is not set, the default of `platformdirs` for labkit.

    A relative one counts from the user's home directory: kernels and commands are started in
    different directories. LabError where there is no such home, or links lead nowhere.
    """
    try:
        path = Path(os.environ.get("LABKIT_HOME") or default("labkit", appauthor=False))
        path = path.expanduser()
        return (path if path.is_absolute() else Path.home() / path).resolve()
    except RuntimeError as error:
        raise LabError(
            f"There is no place for labkit's files in {path}: {str(error).rstrip('.')}. Expected a "
            "user with a home directory, or another place. To do: set LABKIT_HOME to a full path."
        ) from None


def here() -> dict[str, str]:
    """What two processes must have in common for a process id to mean the same to both."""
    root = Path(os.sep).stat()
    found = {"host": platform.node(), "root": f"{root.st_dev}:{root.st_ino}"}
    with contextlib.suppress(OSError):  # Linux has these
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["processes"] = os.readlink("/proc/self/ns/pid")
    return found


def _read_record(home: Path) -> dict[str, Any]:
    # There is none, it is just being written, or it is damaged.
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        record: dict[str, Any] = json.loads((home / "running.json").read_text("utf-8"))
        return record if record["here"]["host"] else {}
    return {}


def write_record(home: Path, **record: int) -> None:
    """Say who works in home, and on which machine."""
    text = json.dumps({"here": here(), "supervisor": os.getpid()} | record)
    (home / "running.json").write_text(text, "utf-8")


def serving(home: Path) -> int | None:
    """The port of the server, if it can be used from here and now."""
    record = _read_record(home)
    if record.get("here") != here() or "port" not in record or not is_alive(record["server"]):
        return None
    supervisor = fasteners.InterProcessReaderWriterLock(home / "supervisor.lock")
    ended = supervisor.acquire_read_lock(blocking=False)
    supervisor.lockfile.close()  # and so gives it up
    return None if ended else record["port"]


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry that nobody has cleared."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


@contextlib.contextmanager
def alone(home: Path, seconds: float = 1) -> Iterator[bool]:
    """Hold supervisor.lock and server.lock, once all is dead that an earlier server consisted of.

    Yields:
        False if there is still another supervisor after so many seconds.

    Raises:
        LabError: It is not proved that all is dead: some of it may be alive on another machine.
    """
    supervisor = fasteners.InterProcessReaderWriterLock(home / "supervisor.lock")
    mine = supervisor.acquire_write_lock(timeout=seconds)
    with supervisor.lockfile, (home / "server.lock").open("a") as file:
        ours, deadline = here(), time.monotonic() + 30
        theirs = _read_record(home).get("here", ours)
        if theirs != ours and not (mine and _lock(file, home)):
            raise _elsewhere(home, theirs, "is used", "end what uses it there")
        if not mine:
            yield False
            return
        while not _lock(file, home):
            if server := _find_server(home):  # its supervisor and its guard were killed
                run(home, "pg_ctl", "kill", "INT", str(server))
            if time.monotonic() > deadline:
                raise LabError(
                    f"Processes of an earlier server still work in {home}. Expected none after "
                    "30 s. To do: end them (their names begin with postgres), or restart this "
                    "machine."
                )
            time.sleep(0.05)
        # The locks of another machine may not be felt here.
        pid_file = home / "server" / "data" / "postmaster.pid"
        same = any(theirs.get(key, "?") == ours.get(key) for key in ("host", "boot"))
        if pid_file.exists() and not same:
            todo = f"see that no PostgreSQL works on it there, and delete {pid_file}"
            raise _elsewhere(home, theirs, "was not stopped", todo)
        yield True


def _lock(file: IO[str], home: Path) -> bool:
    """Lock the file until all who inherited it from here are gone."""
    if sys.platform == "win32":  # where locks are not inherited
        return not _find_server(home)
    import fcntl

    # Not fasteners: its locks belong to a process, and this one is handed on.
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(file.fileno(), True)
        return True
    return False


def _find_server(home: Path) -> int | None:
    """The process id of a server of this very directory that has outlived its supervisor.

    To be asked only on the machine that the record names, and while server.lock is held: by
    something, therefore, that was started here.
    """
    data = home / "server" / "data"
    with contextlib.suppress(psutil.Error, OSError, ValueError):
        pid, _, started = (data / "postmaster.pid").read_text().splitlines()[:3]
        process = psutil.Process(int(pid))
        # Its start time, in seconds, since the number may have been given to another process.
        ours = process.name().startswith("postgres")
        ours &= abs(process.create_time() - int(started)) < 60
        if sys.platform == "win32":  # where no lock is held
            ours &= os.path.samefile(process.cwd(), data)
        return int(pid) if ours else None
    return None


def _elsewhere(home: Path, where: dict[str, str], what: str, todo: str) -> LabError:
    host = where["host"]
    host += ", in another container or root" if host == platform.node() else ""
    return LabError(
        f"The private PostgreSQL in {home} {what} on the machine {host}. "
        "Expected that its directory is used from one place only: two servers would destroy each "
        f"other's data. To do: {todo}; or set LABKIT_HOME to another directory here."
    )
