"""Programs that keep a PostgreSQL or a PgBouncer until their input ends, and then remove it."""

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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg

import labkit as lab
from fleet.processes import say
from labkit.server import embedded

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
            door, console = (f"postgresql://{url}?{service.query}" for url in (door, console))
            say(dsn=door, console=console)
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
