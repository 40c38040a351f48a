"""The private server's directory ("home"): where it is, what it holds, who works in it.

    kernels.lock  shared by all processes that use the server, until they exit, however they do
    server.lock   held by the supervisor, by the server that it has started, and by nobody else
    running.json  who they are, and on which machine: a process id says nothing elsewhere
    server/       password, log and data
    binaries-*/   a copy, where the server's user cannot reach the wheel's

Directories come and go whole: made as new-*, renamed when complete, named so again to be deleted.
"""

import contextlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import platformdirs
import psutil

from labkit.errors import LabError
from labkit.server.programs import IS_ROOT


def place() -> Path:
    """Return the server's directory, whether it is there or not.

    A relative `LABKIT_HOME` counts from the user's home directory: kernels and commands are
    started in different directories.

    Raises:
        LabError: There is no home directory to count from.
    """
    where = platformdirs.site_data_dir if IS_ROOT else platformdirs.user_data_dir
    chosen = os.environ.get("LABKIT_HOME") or where("labkit", appauthor=False)
    with contextlib.suppress(RuntimeError):
        path = Path(chosen).expanduser()
        path = path if path.is_absolute() else Path.home() / path
        if path.is_absolute():
            return (path / "postgresql").resolve()
    raise LabError(
        "The private PostgreSQL has no place: this user has no home directory. Expected one, or "
        "another place. To do: set LABKIT_HOME to a directory, from / on."
    )


def here() -> dict[str, str]:
    """What two processes must have in common for a process id to mean the same to both."""
    root = Path(os.sep).stat()
    found = {"host": platform.node(), "root": f"{root.st_dev}:{root.st_ino}"}
    with contextlib.suppress(OSError):  # Linux has these
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["processes"] = os.readlink("/proc/self/ns/pid")
    return found


def read_record(home: Path) -> dict[str, Any]:
    """Who works in home, by running.json: supervisor, server, port, and `here` as they see it."""
    with contextlib.suppress(OSError, ValueError):  # there is none, or it is just being written
        return dict(json.loads((home / "running.json").read_text("utf-8")))
    return {}


def write_record(home: Path, **record: Any) -> None:
    """Say who works in home."""
    text = json.dumps({"here": here(), "supervisor": os.getpid()} | record)
    (home / "running.json").write_text(text, "utf-8")


def supervised(home: Path) -> dict[str, Any]:
    """The record, if its supervisor is alive, here, and in this very directory; else nothing."""
    record = read_record(home)
    alive = record.get("here") == here() and _works_in(record["supervisor"], home)
    return record if alive else {}


def serving(home: Path) -> int | None:
    """The port of the server, if it can be used from here and now."""
    record = supervised(home)
    return record["port"] if "port" in record and is_alive(record["server"]) else None


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry that nobody has cleared."""
    with contextlib.suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def _works_in(pid: int, directory: Path) -> bool:
    """Whether a process works in this very directory, and not in one of the same name."""
    with contextlib.suppress(psutil.Error, OSError):
        # Not psutil's path: it may be one below another root, or of a directory since replaced.
        cwd = f"/proc/{pid}/cwd" if sys.platform == "linux" else psutil.Process(pid).cwd()
        return is_alive(pid) and os.path.samefile(cwd, directory)
    return False


def find_server(home: Path) -> psutil.Process | None:
    """The living server of this very directory, if its pid file and its process both say so."""
    data = home / "server" / "data"
    with contextlib.suppress(psutil.Error, OSError, ValueError, IndexError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        process = psutil.Process(int(lines[0]))
        named = process.name().startswith("postgres") and is_alive(process.pid)
        # Its own start time, in seconds: the process id may have been given to another since.
        if named and abs(process.create_time() - int(lines[2])) < 60:
            try:
                process.cwd()
            except psutil.AccessDenied:  # root in a container may not ask this of nobody's
                return process if process.cmdline()[1:] == ["-D", str(data)] else None
            return process if _works_in(process.pid, data) else None
    return None


def end(server: psutil.Process) -> None:
    """Stop a server, politely and then by force."""
    for how in server.terminate, server.kill:
        with contextlib.suppress(psutil.NoSuchProcess):
            how()
        deadline = time.monotonic() + 20
        while server.is_running() and is_alive(server.pid) and time.monotonic() < deadline:
            time.sleep(0.02)


@contextlib.contextmanager
def alone(home: Path) -> Iterator[bool]:
    """Hold server.lock, once nothing is alive that an earlier server consisted of.

    Yields:
        False if another supervisor has it.

    Raises:
        LabError: It is not proved that there is none: it may be alive on another machine.
    """
    record, deadline = read_record(home), time.monotonic() + 30
    with (home / "server.lock").open("a") as file:
        while not (mine := _lock(file)) and not supervised(home):
            record = read_record(home)
            if record.get("here", here()) != here():
                raise _elsewhere(home, record, "is used", "end what uses it there")
            if server := find_server(home):
                end(server)  # its supervisor was killed, and what watches over that as well
            elif time.monotonic() > deadline:
                raise LabError(
                    f"Processes of an earlier server still work in {home}. Expected none after "
                    "30 s. To do: end them (their names begin with postgres), or restart this "
                    "machine."
                )
            time.sleep(0.05)
        # What a supervisor of this machine has started holds the lock as long as it lives. But the
        # locks of another machine may not be felt here.
        pid_file, ours = home / "server" / "data" / "postmaster.pid", here()
        theirs = record.get("here", ours)
        same = any(theirs.get(key, "?") == ours.get(key) for key in ("host", "boot"))
        if mine and not same and pid_file.exists():
            todo = f"see that no PostgreSQL works on it there, and delete {pid_file}"
            raise _elsewhere(home, record, "was not stopped", todo)
        yield mine


def _lock(file: IO[str]) -> bool:
    """Lock the file until all who inherited it from here are gone (on Windows: until we are)."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            # Not fasteners: its locks belong to a process, and this one is handed on.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.set_inheritable(file.fileno(), True)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _elsewhere(home: Path, record: dict[str, Any], what: str, todo: str) -> LabError:
    host = record["here"]["host"]
    host += ", in another container or root" if host == platform.node() else ""
    return LabError(
        f"The private PostgreSQL in {home} {what} on the machine {host}. "
        "Expected that its directory is used from one place only: two servers would destroy each "
        f"other's data. To do: {todo}; or set LABKIT_HOME to another directory here."
    )
