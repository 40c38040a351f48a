"""The fleet of notebook 08: what its instances meet, and that nothing of it is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

import asyncpg
import fleet
import psutil
import pytest
import yaml
from fleet import keepers, processes, servers
from fleet.servers import Pooler, Server, start_poolers

from labkit.errors import LabError
from labkit.exercises import notebooks
from labkit.server import Dsn, session
from tests.home import own_home
from tests.server.test_embedded import told, until

needs_pgbouncer = pytest.mark.skipif(servers.installed() is None, reason="there is no pgbouncer")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")

# They stand for a kernel.
STARTS = """
import contextlib, io, sys
sys.path.insert(0, sys.argv[1])
import fleet
from fleet.servers import Server, start_poolers
server = Server()
with contextlib.redirect_stdout(io.StringIO()):
    poolers = start_poolers(server)
"""
NOISY = """
import sys
from fleet.processes import say
for _ in range(2_000):  # 120 kB, more than a pipe holds
    print("W" * 60, file=sys.stderr)
say(lines=2_000)
sys.stdin.readline()
"""
WAITS = f"{STARTS}\nprint('up', flush=True)\nsys.stdin.read()"
ASKS = f"{STARTS}\nfleet.run(server.service, min_size=1, max_size=3, requests=1_000)"


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    """A directory for temporary files; its path has spaces and letters that are not ASCII."""
    with own_home("labkit ñ ü ") as outer, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(outer))
        yield outer


@pytest.fixture(scope="module")
def server(temporary: Path) -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def poolers(server: Server) -> Iterator[list[Pooler]]:
    poolers = start_poolers(server)
    yield poolers
    for pooler in poolers:
        pooler.close()


def gone(temporary: Path) -> bool:
    return not told(str(temporary)) and not list(temporary.iterdir())


async def ask(url: str, query: str, *args: object, **options: Any) -> Any:
    connection = await asyncpg.connect(url, **options)
    try:
        return await connection.fetchval(query, *args)
    finally:
        await connection.close()


# The server alone


def test_the_server_gives_fifteen_connections_to_an_ordinary_role(server: Server) -> None:
    query = "SELECT array_agg(setting::int ORDER BY name) FROM pg_settings WHERE name LIKE $1"
    assert [20] == asyncio.run(ask(server.service, query, "max_connections"))
    assert [2, 3] == asyncio.run(ask(server.service, query, "%reserved_connections"))
    ordinary = "SELECT bool_or(rolsuper) FROM pg_roles WHERE rolname IN ('service', 'limited')"
    assert not asyncio.run(ask(server.admin, ordinary))


def test_min_size_above_the_limit_fails_at_the_start(server: Server) -> None:
    outcome = fleet.run(server.service, min_size=5, max_size=5, requests=2)
    assert 3 == outcome.started
    assert 15 == outcome.pooled == outcome.backends
    [failure] = outcome.failures
    assert failure.startswith("TooManyConnectionsError: remaining connection slots are reserved")
    assert (30, 0, 10) == (outcome.right, outcome.failed, outcome.missing)


def test_only_max_size_above_the_limit_fails_under_load(server: Server) -> None:
    outcome = fleet.run(server.service, min_size=1, max_size=5)
    assert 4 == outcome.started
    assert outcome.failures == []
    assert outcome.pooled <= 15
    assert outcome.failed >= 5
    assert 200 == outcome.right + outcome.failed
    assert all(text.startswith("TooManyConnectionsError: ") for text in outcome.errors)


def test_in_the_budget_nothing_fails(server: Server) -> None:
    outcome = fleet.run(server.service, min_size=3, max_size=3)
    assert 4 == outcome.started
    assert 12 == outcome.pooled == outcome.backends
    assert 200 == outcome.right


def test_no_connection_is_left_by_a_run(server: Server) -> None:
    others = "backend_type = 'client backend' AND pid <> pg_backend_pid()"
    count = f"SELECT count(*) FROM pg_stat_activity WHERE {others}"
    fleet.run(server.service, min_size=1, max_size=1, instances=2, requests=1)
    assert 0 == asyncio.run(ask(server.admin, count))


def test_no_password_stands_on_a_command_line_or_is_shown(server: Server) -> None:
    for url in (server.admin, server.service, server.limited):
        password = urlsplit(url).password
        assert password
        assert told(password) == []
        assert password not in repr(url)


def test_an_instance_that_breaks_is_told_in_words(server: Server) -> None:
    with pytest.raises(RuntimeError, match="A process of the fleet ended: "):
        fleet.run(server.service, min_size=1, max_size=1, no_such_option=1)


@pytest.mark.parametrize(
    "wrong",
    [{"min_size": -1}, {"min_size": 4}, {"min_size": 0, "max_size": 0}]
    + [{name: 0} for name in ("instances", "clients", "requests")],
)
def test_a_fleet_that_cannot_be_is_refused_before_it_starts(wrong: dict[str, int]) -> None:
    given = "".join(f".*{name}={number}" for name, number in wrong.items())
    with pytest.raises(LabError, match=f"This fleet was not started: {given}.*Expected"):
        fleet.run("", **{"min_size": 1, "max_size": 3} | wrong)


def test_an_instance_that_warns_a_lot_is_not_stopped_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    monkeypatch.syspath_prepend(tmp_path)
    with processes.program("noisy") as process:
        processes.tell(process)
        assert {"lines": 2_000} == processes.hear(process)


# Through PgBouncer


@needs_pgbouncer
def test_more_clients_than_the_server_has_connections_are_served(
    server: Server, poolers: list[Pooler]
) -> None:
    for pooler in poolers:
        with pooler.watched() as waiting:
            options = {"min_size": 5, "max_size": 5, "statement_cache_size": 0}
            outcome = fleet.run(pooler.dsn, instances=6, **options)
        assert 30 == outcome.pooled
        assert outcome.failures == []
        assert 300 == outcome.right
        assert 6 == outcome.backends
        assert 0 < max(waiting) < 30


@needs_pgbouncer
def test_the_notebooks_themselves_refuse_a_pooler_in_transaction_mode(
    poolers: list[Pooler],
) -> None:
    async def enter(dsn: Dsn) -> None:
        async with session(dsn):
            pass

    for pooler in poolers:
        with pytest.raises(LabError, match="or a pooler in session mode"):
            asyncio.run(enter(pooler.dsn))


@needs_pgbouncer
def test_named_statements_need_a_pgbouncer_that_tracks_them(poolers: list[Pooler]) -> None:
    assert [False, True][: len(poolers)] == [pooler.tracks for pooler in poolers]
    for pooler in poolers:
        outcome = fleet.run(pooler.dsn, min_size=5, max_size=5)
        assert 200 == outcome.right + outcome.wrong + outcome.failed
        if pooler.tracks:
            assert 200 == outcome.right
        else:
            assert outcome.wrong + outcome.failed > 0
            assert all('prepared statement "__asyncpg_stmt_' in text for text in outcome.errors)


@needs_pgbouncer
def test_it_asks_for_scram_and_listens_on_this_machine_only(poolers: list[Pooler]) -> None:
    settings = {row["key"]: row["value"] for row in poolers[0].ask("SHOW CONFIG")}
    assert "scram-sha-256" == settings["auth_type"]
    assert "127.0.0.1" == settings["listen_addr"]
    assert "transaction" == settings["pool_mode"]
    wrong = poolers[0].dsn[:].replace(str(urlsplit(poolers[0].dsn).password), "wrong")
    with pytest.raises(asyncpg.PostgresError):
        asyncio.run(ask(wrong, "SELECT 1"))


@needs_pgbouncer
def test_compose_s_pgbouncer_is_taken_where_none_is_installed(
    server: Server, poolers: list[Pooler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is started here, in its place: same users, same database."""
    admin, port = urlsplit(server.admin), urlsplit(poolers[-1].dsn).port
    place = f"postgresql://{admin.username}:{admin.password}@127.0.0.1:{port}"
    monkeypatch.setattr(servers, "COMPOSE", place)
    monkeypatch.setattr(servers, "installed", lambda: None)
    [found] = start_poolers(server)
    assert poolers[-1].name == found.name
    query = "SELECT pg_backend_pid()"
    before = asyncio.run(ask(found.dsn, query, statement_cache_size=0))
    assert before == asyncio.run(ask(found.dsn, query, statement_cache_size=0))
    found.close()
    # Still there, and its connections are new ones: nobody's settings, nobody's locks.
    assert before != asyncio.run(ask(found.dsn, query, statement_cache_size=0))


def test_without_any_pgbouncer_a_sentence_says_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "COMPOSE", "postgresql://lab:lab@127.0.0.1:1")
    monkeypatch.setattr(servers, "installed", lambda: None)
    assert start_poolers(server) == []
    assert "docker compose --profile fleet up -d --wait" in capsys.readouterr().out


def test_the_compose_file_has_a_pgbouncer_for_those_who_ask_for_it() -> None:
    file = yaml.safe_load((notebooks().parent / "docker-compose.yml").read_text())
    services = file["services"]
    assert {"postgres", "pgbouncer"} == set(services)
    assert "profiles" not in services["postgres"]  # nor does it wait for PgBouncer
    assert "depends_on" not in services["postgres"]
    pgbouncer, url = services["pgbouncer"], urlsplit(servers.COMPOSE)
    assert ["fleet"] == pgbouncer["profiles"]
    image, _, tag = pgbouncer["image"].partition(":")
    assert "edoburu/pgbouncer" == image
    assert tag.startswith("v1.")
    assert [f"{url.hostname}:{url.port}:5432"] == pgbouncer["ports"]
    assert {"postgres": {"condition": "service_healthy"}} == pgbouncer["depends_on"]
    settings, server = pgbouncer["environment"], services["postgres"]["environment"]
    assert "postgres" == settings["DB_HOST"]
    assert "transaction" == settings["POOL_MODE"]
    assert "scram-sha-256" == settings["AUTH_TYPE"]
    assert f"default_pool_size = {settings['DEFAULT_POOL_SIZE']}" in keepers.PGBOUNCER
    assert url.username == settings["DB_USER"] == settings["ADMIN_USERS"] == server["POSTGRES_USER"]
    assert url.password == settings["DB_PASSWORD"] == server["POSTGRES_PASSWORD"]
    assert settings["DB_NAME"] == server["POSTGRES_DB"]
    assert all(isinstance(value, str) for value in settings.values())
    assert ["CMD", "pg_isready", "-h", "127.0.0.1"] == pgbouncer["healthcheck"]["test"][:4]


# What is left


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory for the temporary files of one test."""
    with own_home("labkit-fleet-test-") as outer:
        yield outer


def test_closing_leaves_nothing(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    server = Server()
    poolers = start_poolers(server)
    assert told(str(elsewhere))
    for pooler in poolers:
        pooler.close()
    server.close()
    assert [] == list(elsewhere.iterdir())
    until(lambda: gone(elsewhere))  # the supervisor, a moment later
    server.close()  # again: nothing happens
    stopped = partial(pytest.raises, LabError, match="was stopped. .* `server = Server.* again")
    for role in ("admin", "service", "limited"):
        with stopped():
            getattr(server, role)
    for pooler in poolers if servers.installed() else []:
        with stopped():
            print(pooler.dsn)
        with stopped(), pooler.watched():
            pass


def test_close_all_ends_also_what_no_name_stands_for(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "_running", WeakValueDictionary())  # not those of other tests
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    held = [Server(), Server()]  # as by the frames of a traceback
    poolers = start_poolers(held[0]) if servers.installed() else []
    servers.close_all()
    servers.close_all()  # again: nothing happens
    assert len(held) + len(poolers) == len(servers._running)
    assert [] == list(elsewhere.iterdir())
    until(lambda: gone(elsewhere))


def kernel(code: str, temporary: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, str(notebooks())]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    env = os.environ | {"TMPDIR": str(temporary)}
    return subprocess.Popen(command, text=True, env=env, cwd=notebooks().parent, **pipes)


def instances_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child] if child.cmdline()[-1:] == ["fleet.instance"] else []
    return found


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended. In a container, perhaps nobody asks what an orphan ended with."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


@posix_only
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_however_the_kernel_ends(elsewhere: Path, how: int) -> None:
    with kernel(WAITS, elsewhere) as process:
        assert process.stdout
        assert process.stdout.read(3) == "up\n"
        assert told(str(elsewhere))
        process.send_signal(how)
    until(lambda: gone(elsewhere))


@posix_only
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_instance_outlives_the_kernel_that_asks_it(elsewhere: Path, how: int) -> None:
    with kernel(ASKS, elsewhere) as process:
        until(lambda: len(instances_of(process)) == 4)
        instances = instances_of(process)
        until(lambda: all(p.net_connections("tcp") for p in instances))
        process.send_signal(how)
    until(lambda: not any(runs(p) for p in instances), seconds=5)
    until(lambda: gone(elsewhere))


@posix_only
def test_nothing_is_left_when_a_keeper_is_told_to_end(elsewhere: Path) -> None:
    with kernel(WAITS, elsewhere) as process:
        assert process.stdout
        assert process.stdout.read(3) == "up\n"
        for keeper in psutil.Process(process.pid).children():
            keeper.terminate()
        until(lambda: gone(elsewhere))
        process.kill()
