"""A process that starts the private server, waits until no kernel uses it, and stops it.

The server ends with its last kernel, and with this process, however they go: a guard, which is
started with the server, tells it to stop as soon as the pipe to this process is closed.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fasteners
import psutil

from labkit.errors import LabError
from labkit.server.home import alone, end, find_server, is_alive, write_record
from labkit.server.programs import AS_OWNER, DETACHED, binaries, failure, major_version, run

# Waits for the end of its input, then runs the rest of its command line. A shell, where there is
# one, since somebody may kill everything that is called python.
GUARD = ["sh", "-c", 'read -r _; exec "$@"', "sh"]
if sys.platform == "win32":
    code = "import subprocess, sys; sys.stdin.read(); subprocess.run(sys.argv[1:])"
    GUARD = [sys.executable, "-c", code]


def supervise(home: Path, settings: str) -> None:
    """Start the server, say so, and stop it as soon as no process uses it.

    Raises:
        LabError, OSError: It cannot be started.
    """
    os.chdir(home)  # by which others know this process; fails where home has been deleted
    kernels = fasteners.InterProcessReaderWriterLock(home / "kernels.lock")
    # Opened at once: later, there may be another directory in the same place.
    if kernels.acquire_write_lock(blocking=False):
        return  # who has started this is gone already
    with alone(home) as mine:
        if not mine:
            return
        _check_version(home)
        write_record(home)
        server, port = _start(home, settings)
        try:
            write_record(home, server=server.pid, port=port)
            stop = [str(binaries(home) / "pg_ctl"), "kill", "INT", str(server.pid)]
            options = DETACHED | AS_OWNER | {"stdin": subprocess.PIPE}
            with subprocess.Popen([*GUARD, *stop], **options) as guard:
                _answer("")
                while is_alive(server.pid) and not kernels.acquire_write_lock(blocking=False):
                    time.sleep(0.2)
                if not is_alive(server.pid):  # killed; its number may soon be somebody else's
                    guard.kill()
            # The guard's input has ended, and so the server has been told to stop.
        finally:
            deadline = time.monotonic() + 20
            while is_alive(server.pid) and time.monotonic() < deadline:
                time.sleep(0.02)
            if server.is_running() and is_alive(server.pid):
                end(server)


def _check_version(home: Path) -> None:
    """Refuse a data directory of another major version, before anything is touched."""
    with contextlib.suppress(FileNotFoundError):
        found = (home / "server" / "data" / "PG_VERSION").read_text().strip()
        if found != (brought := major_version()):
            raise LabError(
                f"The private server's data in {home} are of PostgreSQL {found}, and were left as "
                f"they are. Expected {brought}, which this labkit brings. To do: "
                "`python -m labkit reset` removes them, and the next notebook makes new ones; or "
                "set LABKIT_HOME to another directory."
            )


def _start(home: Path, settings: str) -> tuple[psutil.Process, int]:
    """Start the server, whatever was left from last time; return it and its port."""
    data, log = home / "server" / "data", home / "server" / "log"
    conf = data / "labkit.conf"
    earlier = re.search(r"port = (\d+)", conf.read_text()) if conf.exists() else None
    port = earlier[1] if earlier else ""
    if not (server := find_server(home)):  # else one that an earlier labkit has started
        _clean(home)
        if not data.exists():
            _make(home)
        # Nobody's, or another program's: PostgreSQL would believe it and refuse to start.
        (data / "postmaster.pid").unlink(missing_ok=True)
        said, deadline = "", time.monotonic() + 60
        while not server:
            port = port or str(20000 + secrets.randbelow(40000))
            conf.write_text(f"# Written anew before each start.\n{settings}port = {port}\n")
            conf.chmod(0o644)  # in a directory that only its owner can enter
            _delete(log)
            status, said = run(home, "pg_ctl", "start", "-w", "-D", str(data), "-l", str(log))
            said += log.read_text(errors="replace") if log.exists() else ""
            server = find_server(home)
            if status == 0 and server:
                break
            if server:
                end(server)
                server = None
            if "could not bind" in said:  # the port is taken
                port = ""
            # What a killed server leaves is about to go (on Windows, where it holds no lock).
            elif "still in use" not in said or time.monotonic() > deadline:
                raise failure(home, said)
    password = (home / "server" / "password").read_text()
    complete = home / "server" / "complete"
    if not complete.exists():  # the first start, or a supervisor was killed in it
        login = f"-h 127.0.0.1 -p {port} -U lab -w lab".split()
        status, said = run(home, "createdb", *login, PGPASSWORD=password)
        if status and "already exists" not in said:
            end(server)
            raise failure(home, said)
        complete.touch()
    return server, int(port)


def _clean(home: Path) -> None:
    """Delete what killed processes and earlier versions of the wheel have left."""
    used = binaries(home)
    for left in (*home.glob("new-*"), *home.glob("binaries-*")):
        if left not in used.parents:
            shutil.rmtree(left, ignore_errors=True)


def _make(home: Path) -> None:
    """Make `server/`; it appears complete or not at all."""
    with tempfile.TemporaryDirectory(dir=home, prefix="new-", ignore_cleanup_errors=True) as name:
        new = Path(name)
        (new / "password").write_text(secrets.token_urlsafe(16))
        if AS_OWNER:
            shutil.chown(new, AS_OWNER["user"], AS_OWNER["group"])
            shutil.chown(new / "password", AS_OWNER["user"], AS_OWNER["group"])
        how = "-U lab -A scram-sha-256 -E UTF8 --locale=C --pwfile"
        where = (str(new / "password"), "-D", str(new / "data"))
        status, said = run(home, "initdb", *how.split(), *where)
        if status:
            raise failure(home, said)
        with (new / "data" / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude 'labkit.conf'\n")
        new.rename(home / "server")


def _delete(file: Path) -> None:
    """Delete a file; on Windows wait, up to 10 s, until a dying server has closed it."""
    for _ in range(100):
        with contextlib.suppress(PermissionError):
            return file.unlink(missing_ok=True)
        time.sleep(0.1)
    return file.unlink(missing_ok=True)


def _answer(error: str) -> None:
    """Tell the kernel that has started this; "" if all is well."""
    with contextlib.suppress(OSError):  # it is gone
        print(json.dumps(error), flush=True)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        supervise(place, sys.stdin.read())
    except LabError as error:
        _answer(str(error))
    except Exception as error:
        _answer(str(failure(place, f"{type(error).__name__}: {error}")))
