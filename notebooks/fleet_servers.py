"""What the fleet of notebook 07 works on: a small PostgreSQL of its own, and a PgBouncer.

Each is kept by a process, which ends it and removes its directory as soon as the notebook says so
or is gone, however it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg2.extras
from fleet import hear, program, say, tell

import labkit as lab
from labkit.server import embedded

COMPOSE = "postgresql://lab:lab@127.0.0.1:64320"  # as in docker-compose.yml, profile fleet
CONNECTIONS = """
max_connections = 20
superuser_reserved_connections = 3
reserved_connections = 2
fsync = off
"""
PGBOUNCER = """\
[databases]
{database} = host={host} port={port}
[pgbouncer]
pool_mode = transaction
default_pool_size = 6
max_client_conn = 200
auth_type = scram-sha-256
auth_file = {directory}/users
admin_users = {admin}
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
"""


class Kept:
    """Something that a process of its own keeps until `close`, or until this process is gone."""

    def __init__(self, what: str, **order: Any) -> None:
        """Have it started, and wait until it is ready."""
        self._stack = ExitStack()
        process = self._stack.enter_context(program(__file__, what))
        try:
            tell(process, **order)
            self.facts = hear(process)
            if problem := self.facts.get("problem"):
                raise lab.LabError(problem)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it, and leave nothing of it behind."""
        self._stack.close()


class Server:
    """A PostgreSQL with 20 connections, of which 3 + 2 are reserved, that nobody else uses.

    Attributes:
        admin: Its URL for a superuser.
        service: Its URL for an ordinary role.
        limited: Its URL for a role that may have four connections.
    """

    def __init__(self) -> None:
        """Make and start it: about a second."""
        self._kept = Kept("server")
        self.admin, self.service, self.limited = (
            lab.Dsn(self._kept.facts[role]) for role in ("admin", "service", "limited")
        )

    def close(self) -> None:
        """Stop and remove it."""
        self._kept.close()


class Pooler:
    """A PgBouncer in transaction mode, which opens at most six connections to the server.

    Attributes:
        name: Its version, and whether it keeps track of prepared statements.
        tracks: Whether it does.
        dsn: Its URL, to be used in place of the server's.
    """

    def __init__(self, dsn: str, console: str, kept: Kept | None = None) -> None:
        """Get to know one that is running."""
        self.dsn, self._console, self._kept = lab.Dsn(dsn), lab.Dsn(console), kept
        version = self.ask("SHOW VERSION")[0]["version"]  # "PgBouncer 1.25.1"
        settings = {row["key"]: row["value"] for row in self.ask("SHOW CONFIG")}
        self.tracks = int(settings.get("max_prepared_statements", 0)) > 0
        self.name = f"{version}, prepared statements {'' if self.tracks else 'not '}tracked"

    def ask(self, command: str) -> list[dict[str, Any]]:
        """Ask its console, which knows a few words of SQL: `ask("SHOW POOLS")`."""
        factory = psycopg2.extras.RealDictCursor
        with closing(psycopg2.connect(self._console[:], cursor_factory=factory)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(command)
                return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    @contextmanager
    def watched(self) -> Iterator[list[int]]:
        """Note, every 30 ms, how many of its clients wait for a connection."""
        waiting: list[int] = []
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.03):
                waiting.append(sum(row["cl_waiting"] for row in self.ask("SHOW POOLS")))

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
            poolers.append(Pooler(kept.facts["dsn"], kept.facts["console"], kept))
        return poolers
    with contextlib.suppress(psycopg2.OperationalError):
        return [Pooler(f"{COMPOSE}/lab", f"{COMPOSE}/pgbouncer?connect_timeout=2")]
    print(
        "No PgBouncer here, so the cells that need one have nothing to show. Either of these gets "
        "you one: `docker compose --profile fleet up -d --wait`, or the package pgbouncer of your "
        "Linux distribution. Then run the cells again."
    )
    return []


def installed() -> str | None:
    """Where PgBouncer is installed, if it is. (Debian puts it where only root looks.)"""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


# What runs in a process of its own: it keeps something until the end of its input.


def keep_server() -> None:
    """Make a PostgreSQL, keep it until the end of input, remove it."""
    with _private_directory() as home:
        os.environ["LABKIT_HOME"] = str(home)
        embedded.SETTINGS += CONNECTIONS
        try:
            admin = embedded.start()
            place = admin.rpartition("@")[2]
            urls = {"admin": admin} | asyncio.run(_make_roles(admin, place))
            say(**urls)
            sys.stdin.read()
        except lab.LabError as error:
            say(problem=str(error))
        finally:
            embedded.stop(embedded.place())


async def _make_roles(admin: str, place: str) -> dict[str, str]:
    connection = await asyncpg.connect(admin)
    urls = {}
    for role, limit in {"service": -1, "limited": 4}.items():
        password = secrets.token_hex(16)
        await connection.execute(
            f"CREATE ROLE {role} LOGIN PASSWORD '{password}' CONNECTION LIMIT {limit}"
        )
        urls[role] = f"postgresql://{role}:{password}@{place}"
    await connection.close()
    return urls


def keep_pooler() -> None:
    """Run a PgBouncer until the end of input; leave nothing of it."""
    order = json.loads(sys.stdin.readline())
    admin, service = urlsplit(order["admin"]), urlsplit(order["service"])
    with _private_directory() as directory, (directory / "log").open("w") as log:
        with socket.create_server(("127.0.0.1", 0)) as free:
            own_port = free.getsockname()[1]
        server = {"database": service.path[1:], "host": service.hostname, "port": service.port}
        own = {"directory": directory, "own_port": own_port, "admin": admin.username}
        ini = PGBOUNCER.format(**server, **own)
        ini += order["setting"] + "\n"
        users = "".join(f'"{url.username}" "{url.password}"\n' for url in (admin, service))
        directory.chmod(0o700)  # before the passwords are in it
        for name, text in {"ini": ini, "users": users}.items():
            (directory / name).write_text(text)
        if embedded.AS_OWNER:
            for path in (directory, *directory.iterdir()):
                shutil.chown(path, embedded.AS_OWNER["user"], embedded.AS_OWNER["group"])
        options = embedded.DETACHED | embedded.AS_OWNER | {"stderr": log}
        process = subprocess.Popen([order["path"], str(directory / "ini")], **options)
        try:
            deadline = time.monotonic() + 10
            while not _answers(own_port):
                if process.poll() is not None or time.monotonic() > deadline:
                    said = (directory / "log").read_text()
                    say(problem=f"PgBouncer did not start: {said}")
                    return
                time.sleep(0.01)
            door = f"{service.username}:{service.password}@127.0.0.1:{own_port}{service.path}"
            console = f"{admin.username}:{admin.password}@127.0.0.1:{own_port}/pgbouncer"
            say(dsn=f"postgresql://{door}", console=f"postgresql://{console}")
            sys.stdin.read()
        finally:
            process.kill()  # it has nothing to save
            process.wait()


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextmanager
def _private_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="labkit-fleet-", ignore_cleanup_errors=True) as name:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            os.chmod(name, 0o755)  # the server, which is run as nobody, has to pass
        yield Path(name).resolve()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    {"server": keep_server, "pooler": keep_pooler}[sys.argv[1]]()
