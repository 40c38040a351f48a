"""What the fleet works on: a small PostgreSQL of its own, and a PgBouncer before it.

Each is kept by a process (`keepers.py`), which ends it and removes its directory as soon as the
notebook says so or is gone, however it went.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from weakref import WeakValueDictionary

import psycopg2
import psycopg2.extras

import labkit as lab
from fleet.processes import hear, program, tell

COMPOSE = "postgresql://lab:lab@127.0.0.1:64320"  # as in docker-compose.yml, profile fleet


_running: WeakValueDictionary[int, Kept] = WeakValueDictionary()  # by their keepers' pids


class Kept:
    """Something that a process of its own keeps until `close`, or until this process is gone."""

    def __init__(self, what: str, **order: Any) -> None:
        """Have it started, and wait until it is ready."""
        self._what, self._stack = what, ExitStack()
        process = self._stack.enter_context(program("fleet.keepers", what))
        _running[process.pid] = self
        try:
            tell(process, **order)
            self._urls = hear(process)
            if problem := self._urls.get("problem"):
                raise lab.LabError(problem)
        except BaseException:
            self.close()
            raise

    def url(self, name: str) -> lab.Dsn:
        """One of its URLs.

        Raises:
            LabError: It was stopped.
        """
        if not self._urls:
            raise lab.LabError(
                f"This {self._what} was stopped. Expected one that runs. To do: run the cell with "
                "`server = Server()` again, and then the one with `start_poolers(server)`."
            )
        return lab.Dsn(self._urls[name])

    def close(self) -> None:
        """End it, and leave nothing of it behind."""
        self._urls = {}
        self._stack.close()


def close_all() -> None:
    """End all that was started here and still runs, also what no name stands for any more."""
    for kept in reversed(list(_running.values())):  # a PgBouncer before its server
        kept.close()


class Server:
    """A PostgreSQL with 20 connections, of which 3 + 2 are reserved, that nobody else uses."""

    def __init__(self) -> None:
        """Make and start it: about a second."""
        self._kept = Kept("server")

    @property
    def admin(self) -> lab.Dsn:
        """Its URL for a superuser."""
        return self._kept.url("admin")

    @property
    def service(self) -> lab.Dsn:
        """Its URL for an ordinary role."""
        return self._kept.url("service")

    @property
    def limited(self) -> lab.Dsn:
        """Its URL for a role that may have four connections."""
        return self._kept.url("limited")

    def close(self) -> None:
        """Stop and remove it."""
        self._kept.close()


class Pooler:
    """A PgBouncer in transaction mode, which opens at most six connections to the server.

    Attributes:
        name: Its version, and whether it keeps track of prepared statements.
        tracks: Whether it does.
    """

    def __init__(self, url: Callable[[str], str], kept: Kept | None = None) -> None:
        """Get to know one that is running, by its URLs: that of its "console" and its "dsn"."""
        self._url, self._kept = url, kept
        version = self.ask("SHOW VERSION")[0]["version"]  # "PgBouncer 1.25.1"
        settings = {row["key"]: row["value"] for row in self.ask("SHOW CONFIG")}
        self.tracks = int(settings.get("max_prepared_statements", 0)) > 0
        self.name = f"{version}, prepared statements {'' if self.tracks else 'not '}tracked"

    @property
    def dsn(self) -> lab.Dsn:
        """Its URL, to be used in place of the server's."""
        return lab.Dsn(self._url("dsn")[:])

    def ask(self, command: str) -> list[dict[str, Any]]:
        """Ask its console, which knows a few words of SQL: `ask("SHOW POOLS")`."""
        factory = psycopg2.extras.RealDictCursor
        console = self._url("console")[:]
        with closing(psycopg2.connect(console, cursor_factory=factory)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(command)
                return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    @contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Note, every 30 ms, how many of its clients wait for a connection."""

        def clients() -> int:
            return sum(row["cl_waiting"] for row in self.ask("SHOW POOLS"))

        waiting = [clients()]  # before there is a thread: it says here if it was stopped
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.03):
                waiting.append(clients())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield waiting
        finally:
            over.set()
            thread.join()

    def close(self) -> None:
        """End it, if it was started here; if not, have it give back what its sessions hold."""
        if self._kept:
            self._kept.close()
        else:
            self.ask("RECONNECT")


def start_poolers(server: Server) -> list[Pooler]:
    """Start the PgBouncer that is installed here, before this server; or find Compose's.

    From version 1.21 on PgBouncer can keep track of prepared statements. Then there are two:
    the first does not, the second does.
    """
    if path := installed():
        said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
        major, minor = (int(part) for part in said.split()[1].split(".")[:2])
        settings = ["max_prepared_statements = 0", "max_prepared_statements = 200"]
        poolers = []
        for setting in settings if (major, minor) >= (1, 21) else [""]:
            order = {"path": path, "admin": server.admin, "service": server.service}
            kept = Kept("pooler", **order, setting=setting)
            poolers.append(Pooler(kept.url, kept))
        return poolers
    with contextlib.suppress(psycopg2.OperationalError):
        urls = {"dsn": f"{COMPOSE}/lab?sslmode=disable"}
        urls["console"] = f"{COMPOSE}/pgbouncer?sslmode=disable&connect_timeout=2"
        return [Pooler(urls.__getitem__)]
    print(
        "No PgBouncer here, so the cells that need one have nothing to show. Either of these gets "
        "you one: `docker compose --profile fleet up -d --wait`, or the package pgbouncer of your "
        "Linux distribution. Then run the cells again."
    )
    return []


def installed() -> str | None:
    """Where PgBouncer is installed, if it is. (Debian puts it where only root looks.)"""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
