"""Which server it takes, what it makes there, and what it says when it cannot."""

import asyncio
import importlib
import itertools
import json
import os
import pickle
import re
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import psycopg2
import pytest
import yaml

from labkit.errors import LabError
from labkit.server import Dsn, database, embedded, explain, has_dataset, session
from labkit.server.database import COMPOSE_URL
from labkit.server.dataset import CONTENT, CONTENT_QUERY, ROWS, SHAPE, SHAPE_QUERY
from labkit.server.needs import check_needs

# By this name, `labkit` itself has the function.
module: Any = importlib.import_module("labkit.server.database")
CHECKOUT = Path(__file__).parents[2]
SECRET = "s3cret-p4ss"
numbers = itertools.count()


def run(url: str, *statements: str) -> Any:
    """Run statements, each in a transaction of its own; return the last one's first value."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchone()[0] if cursor.description else None


def at(dsn: str, user: str | None = None, database: str | None = None) -> str:
    """The same server's URL, for another role (whose password is SECRET) or database."""
    parts = urlsplit(dsn)
    login = f"{user}:{SECRET}" if user else f"{parts.username}:{parts.password}"
    return f"postgresql://{login}@{parts.hostname}:{parts.port}/{database or parts.path[1:]}"


@pytest.fixture
def other(dsn: Dsn) -> Iterator[str]:
    """The URL of an empty database, on the same server, of its owner, who is no superuser."""
    name = f"other{next(numbers)}"
    run(dsn, f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    run(dsn, f"CREATE DATABASE {name} OWNER {name}")
    yield at(dsn, name, name)
    run(dsn, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What database() says of a DATABASE_URL that it refuses."""

    def ask(url: str) -> str:
        monkeypatch.setenv("DATABASE_URL", url)
        with pytest.raises(LabError) as caught:
            database()
        said = str(caught.value)
        assert SECRET not in said
        assert "Expected" in said
        assert "To do:" in said
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
        return said

    return ask


@contextmanager
def server_that(answers: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server for one kind of answer; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    answers(client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answers_http(client: socket.socket) -> None:
    client.recv(100)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def answers_as_postgresql_13(client: socket.socket) -> None:
    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!I", len(body) + 4) + body

    client.recv(8)  # may I use TLS?
    client.sendall(b"N")
    client.recv(1000)  # who I am
    version = message(b"S", b"server_version\x0013.22\x00")
    settings = message(b"S", b"client_encoding\x00UTF8\x00")
    login, ready = message(b"R", bytes(4)), message(b"Z", b"I")
    client.sendall(login + version + settings + message(b"K", bytes(8)) + ready)
    client.recv(1000)  # good-bye


def answers_with(code: str, text: str) -> Callable[[socket.socket], None]:
    """A PostgreSQL that has no SSL, and refuses each login with this error."""

    def answer(client: socket.socket) -> None:
        client.recv(8)  # may I use TLS?
        client.sendall(b"N")
        client.recv(1000)  # who I am
        body = f"SFATAL\0VFATAL\0C{code}\0M{text}\0\0".encode()
        client.sendall(b"E" + struct.pack("!I", len(body) + 4) + body)

    return answer


# The password


def test_a_dsn_shows_its_password_nowhere() -> None:
    dsn = Dsn(f"postgresql://lab:{SECRET}@localhost:5433/lab")
    shown = "postgresql://lab:***@localhost:5433/lab"
    assert str(dsn) == shown
    assert repr(dsn) == repr(shown)
    assert f"{dsn}" == shown
    assert f"{dsn!s:>50}" == f"{shown:>50}"
    assert "%s" % dsn == shown  # noqa: UP031
    assert f"{[dsn]}" == f"['{shown}']"
    assert type(str(dsn)) is str


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://h/d?password={SECRET}&user=u", "postgresql://h/d?password=***&user=u"),
        (f"postgresql://h/d?user=u&PASSWORD={SECRET}", "postgresql://h/d?user=u&PASSWORD=***"),
        (f"postgresql://h/d?sslpassword={SECRET}", "postgresql://h/d?sslpassword=***"),
        (f"postgresql://u:a@b/{SECRET}@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("postgresql://h:5432/d", "postgresql://h:5432/d"),
    ],
)
def test_a_dsn_hides_passwords_and_nothing_else(url: str, shown: str) -> None:
    assert str(Dsn(url)) == shown


def test_drivers_and_libraries_get_the_real_password(dsn: Dsn) -> None:
    async def through_a_pool() -> Any:
        async with asyncpg.create_pool(dsn, min_size=1, max_size=1) as pool:
            return await pool.fetchval("SELECT 1")

    assert asyncio.run(through_a_pool()) == 1
    with closing(psycopg2.connect(dsn)) as connection:
        assert connection.info.dbname == "lab"
    with closing(psycopg2.connect(dsn, connect_timeout=5)) as connection:
        assert connection.info.dbname == "lab"
    password = urlsplit(dsn).password
    assert password
    assert password not in str(dsn)
    assert password in json.dumps(dsn)


@pytest.mark.parametrize(
    "change",
    [
        lambda dsn: dsn + "?sslmode=disable",
        lambda dsn: "at " + dsn,
        lambda dsn: dsn.strip(),
        lambda dsn: dsn.replace("lab", "other"),
        lambda dsn: dsn.removesuffix("/lab"),
        lambda dsn: dsn.ljust(99),
        lambda dsn: (dsn + "?a=b").rstrip("b").lower() * 1,
    ],
)
def test_what_is_made_of_a_dsn_hides_the_password_too(change: Callable[[Dsn], Any]) -> None:
    changed = change(Dsn(f"postgresql://lab:{SECRET}@localhost/lab"))
    assert SECRET not in f"{changed}{changed!r}"
    assert "***" in str(changed)
    assert SECRET in changed[:]  # drivers need it


@pytest.mark.parametrize(
    "url",
    [
        f"host=localhost user=lab password=sec {SECRET}",
        f"host=localhost password='sec {SECRET}' user=lab",
        f"postgresql://lab:pw\n{SECRET}@h/db",
        f"postgresql://lab@h/db?password=a%26{SECRET}&x=1",
        f"postgresql://lab@h/db?pass%77ord={SECRET}",
        f"postgresql://lab:12#34{SECRET}@h/db",
        f"postgresql://lab:{SECRET}",
        f"postgresql://h:5432/db?password=a@{SECRET}",
    ],
)
def test_a_password_is_hidden_however_the_url_is_written(url: str) -> None:
    assert SECRET not in str(Dsn(url))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_dsn_survives_pickling(protocol: int) -> None:
    dsn = Dsn(f"postgresql://lab:{SECRET}@localhost/lab")
    copy = pickle.loads(pickle.dumps(dsn, protocol))
    assert copy == dsn
    assert type(copy) is Dsn


# Which server


def test_without_anything_it_is_the_embedded_server_and_one_line_says_so(
    dsn: Dsn, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPOSE_URL", "postgresql://lab:lab@127.0.0.1:1/lab")
        assert database() == dsn
    line = capsys.readouterr().out
    assert line.startswith("PostgreSQL 18.")
    assert ", embedded (no DATABASE_URL, nothing on 127.0.0.1:54320): postgresql://lab:***@" in line
    assert line.endswith("/lab, 200,000 orders ready\n")
    assert str(urlsplit(dsn).password) not in line


@pytest.mark.parametrize(
    "setting", ["PGHOSTADDR=192.0.2.1", "PGSERVICE=none", "PGSSLMODE=require", "PGOPTIONS=-c no=1"]
)
@pytest.mark.parametrize("compose", [True, False])
def test_a_users_settings_for_drivers_do_not_reach_labkits_own_server(
    dsn: Dsn,
    compose: bool,
    setting: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module, "COMPOSE_URL", dsn[:] if compose else "postgresql://127.0.0.1:1")
    monkeypatch.setenv(*setting.split("=", 1))
    url = database()
    assert url == dsn
    assert f"; {setting.partition('=')[0]} left out): " in capsys.readouterr().out
    assert run(url, "SELECT 1") == 1
    ask = "import os; print([name for name in os.environ if name.startswith('PG')])"
    assert subprocess.check_output([sys.executable, "-c", ask], text=True) == "['PGSSLMODE']\n"


def test_a_certificate_of_the_users_does_not_reach_labkits_own_server(
    dsn: Dsn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = tmp_path / ".postgresql" / "postgresql.crt"
    certificate.parent.mkdir()
    certificate.write_text("No driver can read this, as it cannot where the key has a passphrase.")
    for name in "HOME", "USERPROFILE":
        monkeypatch.setenv(name, str(tmp_path))
    assert run(database(), "SELECT 1") == 1
    assert "nothing on 127.0.0.1:54320" in capsys.readouterr().out


def test_a_port_of_the_environments_that_is_no_number_is_told(
    other: str, refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "x")
    assert "a number for the port (and in PGPORT, if that is set)" in refused(other)


def test_a_timeout_among_the_urls_options_is_told(
    other: str, refused: Callable[[str], str]
) -> None:
    said = refused(f"{other}?options=-c%20statement_timeout%3D500")
    assert "TO 0; or take them out of the URL's options, or name another role" in said


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ("?statement_timeout=60000", ""),
        ("?sslmode=prefer&jit=off&work_mem=1MB", ""),
        ("", "PGSERVICE=none"),
        ("", "PGREQUIREAUTH=none"),
    ],
)
def test_what_only_asyncpg_takes_is_told_without_the_password(
    other: str, options: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", other + options)
    monkeypatch.setenv(*(setting or "PGAPPNAME=lab").split("="))
    with pytest.raises(LabError, match=r"psycopg2 cannot connect .* though asyncpg can") as caught:
        database()
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("options", "setting", "said"),
    [
        ("?dbname=postgres", "", "database is other\\d+ for asyncpg, and postgres for psycopg2"),
        (
            "",
            "PGOPTIONS=-c default_transaction_read_only=on",
            "read_only is False for asyncpg, and",
        ),
        ("", "PGOPTIONS=-c lock_timeout=50", "timeouts is None for .* and lock_timeout = 50ms for"),
        ("", "PGOPTIONS=-c role=pg_monitor", "role is other\\d+ for asyncpg, and pg_monitor for"),
    ],
)
def test_drivers_that_come_to_different_places_are_told(
    dsn: Dsn,
    other: str,
    refused: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    options: str,
    setting: str,
    said: str,
) -> None:
    run(dsn, f"GRANT pg_monitor TO {urlsplit(other).username}")
    monkeypatch.setenv(*(setting or "PGAPPNAME=lab").split("=", 1))
    assert re.search(f"both: .*{said}.*Expected no difference", refused(other + options))


def test_drivers_that_come_to_different_servers_are_told(
    other: str, refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by PGHOSTADDR; another time of its start stands for another server."""

    async def elsewhere(connection: Any) -> Any:
        return {**await check_needs(connection), "server_started": "2001"}

    monkeypatch.setattr(module, "check_needs", elsewhere)
    assert "server_started is 2001 for asyncpg, and 2" in refused(other)
    assert run(other, "SELECT to_regclass('labkit.orders') IS NULL"), "it was made all the same"


def test_what_both_drivers_take_is_well(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = Dsn(f"{other}?options=-c%20statement_timeout%3D60000&application_name=lab")
    monkeypatch.setenv("DATABASE_URL", url[:])
    database()


def test_database_url_comes_first(
    other: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{other}?sslmode=prefer")
    assert database() == f"{other}?sslmode=prefer"
    line = capsys.readouterr().out
    assert ", from DATABASE_URL: postgresql://" in line
    assert SECRET not in line
    assert run(other, "SELECT count(*) FROM labkit.orders") == ROWS


def test_the_compose_server_is_taken_when_it_answers(
    other: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "COMPOSE_URL", other)
    assert database() == other
    assert ", Compose (no DATABASE_URL, it answers on 127.0.0.1:54320): " in capsys.readouterr().out


def test_another_postgresql_on_the_compose_port_is_passed_over_and_named(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "COMPOSE_URL", at(dsn, "lab"))
    assert database() == dsn
    assert "another PostgreSQL on 127.0.0.1:54320, which refused" in capsys.readouterr().out


def test_what_is_not_postgresql_on_the_compose_port_is_passed_over_and_named(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server_that(answers_http) as port:
        monkeypatch.setattr(module, "COMPOSE_URL", f"postgresql://lab:lab@127.0.0.1:{port}/lab")
        assert database() == dsn
    assert "no DATABASE_URL, 127.0.0.1:54320 cannot be used: " in capsys.readouterr().out


def test_of_composes_port_no_more_is_said_than_is_known(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPOSE_URL", at(other, urlsplit(other).username, "nowhere"))
    dsn, which = module.choose()
    assert dsn is None
    assert '127.0.0.1:54320 cannot be used: database "nowhere" does not exist' in which


def test_the_place_is_the_one_that_was_reached_wherever_it_is_named(
    other: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = urlsplit(other)
    login, name = f"{parts.username}:{SECRET}", parts.path[1:]
    for variable, value in [("PGHOST", parts.hostname), ("PGPORT", parts.port)]:
        monkeypatch.setenv(variable, str(value))
    for url in (
        f"postgresql:///{name}?host={parts.hostname}&port={parts.port}"
        f"&user={parts.username}&password={SECRET}",
        f"postgresql://{login}@/{name}",
        f"postgresql://{login}@127.0.0.1:1,{parts.hostname}:{parts.port}/{name}",
        f"postgresql://{login}@{parts.hostname}?dbname={name}",
        f"postgresql://{login}@{parts.hostname}/",  # the server takes that of the role's name
    ):
        monkeypatch.setenv("DATABASE_URL", url)
        database()
        assert f"from DATABASE_URL: {Dsn(other)}, 200,000" in capsys.readouterr().out


def test_the_compose_file_says_what_labkit_expects() -> None:
    service = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]["postgres"]
    url = urlsplit(COMPOSE_URL)
    settings = service["environment"]
    assert service["image"] == "postgres:18"
    assert service["ports"] == [f"{url.hostname}:{url.port}:5432"]
    assert settings["POSTGRES_USER"] == url.username
    assert settings["POSTGRES_PASSWORD"] == url.password
    assert settings["POSTGRES_DB"] == url.path[1:]
    assert settings["POSTGRES_HOST_AUTH_METHOD"] == "scram-sha-256"
    assert [volume.partition(":")[2] for volume in service["volumes"]] == ["/var/lib/postgresql"]
    assert service["healthcheck"]["test"][:4] == ["CMD", "pg_isready", "-h", "127.0.0.1"]


# Where it is called


def test_it_works_where_a_loop_already_runs(dsn: Dsn) -> None:
    async def cell() -> Dsn:
        return database()

    assert asyncio.run(cell()) == dsn


def test_under_nest_asyncio_it_works_up_to_python_3_13_and_says_why_not_later(dsn: Dsn) -> None:
    cell = (
        "import asyncio, nest_asyncio\n"
        "from labkit.server.database import database\n"
        "async def cell():\n"
        "    nest_asyncio.apply()\n"
        "    return database()\n"
        "asyncio.run(cell())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", cell], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    if sys.version_info < (3, 14):
        assert done.returncode == 0, done.stderr
        assert "200,000 orders ready" in done.stdout
    else:
        assert "LabError: PostgreSQL was not asked: this process runs on an event" in done.stderr
        assert "remove nest_asyncio.apply() and restart the kernel." in done.stderr


def test_it_leaves_no_connection_open(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", other)
    database()
    others = "pid <> pg_backend_pid() AND datname = current_database()"
    left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND "
    # The server notices a closed connection a moment later.
    assert any(run(other, left + others) == 0 for _ in range(200))


# The dataset


def test_the_dataset_is_the_one_that_was_meant(dsn: Dsn) -> None:
    """The sums that labkit compares with, worked out a second time in Python."""
    ids = range(1, ROWS + 1)
    cents = sum(i * (i * 104729 % 100000 + 100) for i in ids)
    notes = (f"order {i} of batch {i * 2654435761 % 2**32:x}" for i in ids)
    assert CONTENT.split() == [
        str(ROWS),
        str(sum(i * (i * 7919 % 1000) for i in ids)),
        f"{cents // 100}.{cents % 100:02}",
        str(sum(i * len(note) for i, note in zip(ids, notes, strict=True))),
        str(sum(i * (1735689600 + 37 * i) for i in ids)),
    ]
    assert (
        run(dsn, "SELECT note FROM labkit.orders WHERE id = 543") == "order 543 of batch 97ab1e6f"
    )


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM labkit.orders WHERE id = 77",
        "DROP INDEX labkit.orders_customer_idx",
        "ALTER TABLE labkit.orders DROP COLUMN note",
        "COMMENT ON TABLE labkit.orders IS 'labkit dataset 0'",
        "DROP TABLE labkit.orders",
        "DROP SCHEMA labkit CASCADE",
    ],
)
def test_a_dataset_that_differs_is_made_anew(dsn: Dsn, damage: str) -> None:
    run(dsn, damage)
    database()
    assert run(dsn, SHAPE_QUERY) == SHAPE
    assert run(dsn, CONTENT_QUERY) == CONTENT


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE labkit.orders SET amount = amount + 0.01 WHERE id = 77",
        "UPDATE labkit.orders SET customer = 1000 - customer WHERE id IN (1, 2)",
    ],
)
def test_values_that_were_changed_are_found_by_the_full_check(dsn: Dsn, damage: str) -> None:
    async def check() -> bool:
        async with session(dsn) as connection:
            return await has_dataset(connection)

    assert asyncio.run(check())
    run(dsn, damage)
    try:
        assert not asyncio.run(check())
    finally:
        run(dsn, "DROP TABLE labkit.orders")
        database()


@pytest.mark.parametrize(
    "thing",
    [
        "TABLE labkit.orders AS SELECT 'precious' AS it",
        "TABLE labkit.orders (it text) PARTITION BY LIST (it)",
        "VIEW labkit.orders AS SELECT 1 AS it",
        "TYPE labkit.orders AS ENUM ('it')",
    ],
)
def test_what_labkit_did_not_make_is_left_as_it_is(
    other: str, refused: Callable[[str], str], thing: str
) -> None:
    run(other, "CREATE SCHEMA labkit", f"CREATE {thing}")
    ours = "SELECT string_agg(oid::text, ' ') FROM pg_class WHERE relname = 'orders'"
    before = run(other, ours), run(other, "SELECT to_regtype('labkit.orders')::oid")
    assert re.search("nothing says that labkit has made it|already exists", refused(other))
    assert before == (run(other, ours), run(other, "SELECT to_regtype('labkit.orders')::oid"))


@pytest.mark.parametrize(
    "thing",
    ["VIEW kept AS SELECT id FROM labkit.orders", "TABLE kept (it labkit.orders)"],
)
def test_what_depends_on_a_dataset_that_must_be_made_anew_is_named(
    other: str, refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, thing: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", other)
    database()
    run(other, f"CREATE {thing}")
    database()  # which need not make it anew
    run(other, "DELETE FROM labkit.orders WHERE id = 77")
    said = refused(other)
    assert re.search(r"(view|column it of table) kept depends on \w+ labkit.orders", said)
    assert "Expected that nothing depends on labkit.orders, which must be made anew" in said
    assert run(other, "SELECT count(*) FROM labkit.orders") == ROWS - 1


@pytest.mark.parametrize("quotes", ["off", "on"])
def test_a_dataset_that_is_right_is_left_alone(dsn: Dsn, quotes: str) -> None:
    oid = "SELECT 'labkit.orders'::regclass::oid"
    before = run(dsn, oid)
    run(dsn, f"ALTER DATABASE lab SET quote_all_identifiers = {quotes}")
    database()
    run(dsn, "ALTER DATABASE lab RESET quote_all_identifiers")
    assert run(dsn, oid) == before


def test_a_sequence_of_an_index_s_name_is_told(other: str, refused: Callable[[str], str]) -> None:
    run(other, "CREATE SCHEMA labkit", "CREATE SEQUENCE labkit.orders_pkey")
    assert 'relation "orders_pkey" already exists. Expected a schema labkit in' in refused(other)


def test_two_kernels_at_once_make_the_dataset_once(
    other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []
    is_there = module.looks_right

    async def spy(connection: Any) -> bool:
        found.append(await is_there(connection))
        return found[-1]

    monkeypatch.setattr(module, "looks_right", spy)
    monkeypatch.setenv("DATABASE_URL", other)
    with ThreadPoolExecutor(2) as kernels:
        assert [other, other] == list(kernels.map(lambda _: database(), range(2)))
    assert run(other, CONTENT_QUERY) == CONTENT
    assert found == [False, True]


def test_it_touches_its_own_schema_only(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run(other, "CREATE TABLE orders AS SELECT 7 AS mine")
    everything = (
        "SELECT string_agg(nspname || '.' || relname, ' ' ORDER BY nspname, relname) "
        "FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname NOT LIKE 'pg%' AND nspname <> 'information_schema'"
    )
    schemas = "SELECT count(*) FROM pg_namespace WHERE nspname NOT LIKE 'pg%'"
    assert run(other, schemas) == 2
    monkeypatch.setenv("DATABASE_URL", other)
    database()
    made = "labkit.orders labkit.orders_customer_idx labkit.orders_pkey"
    assert run(other, everything) == f"{made} public.orders"
    assert run(other, schemas) == 3
    assert run(other, "SELECT mine FROM public.orders") == 7


# What can go wrong


@pytest.mark.parametrize(
    "url",
    [
        "hello",
        f"mysql://u:{SECRET}@localhost/db",
        f"postgresql+asyncpg://u:{SECRET}@localhost/db",
        f"host=localhost password={SECRET}",
        f"postgresql://u:{SECRET}/x@localhost/db",
        f"postgresql://u:{SECRET}@localhost:port/db",
        f"postgresql://u:{SECRET}@[::1/db",
        f"postgresql://u:12#34{SECRET}@localhost/db",
        f"postgresql://u:12?34{SECRET}@localhost/db",
        f"postgresql://u:12/34{SECRET}@localhost/db",
        f"postgresql://u:12@{SECRET}@localhost/db",
        f"postgresql://u:{SECRET}@localhost/db?sslmode",
        f"POSTGRESQL://u:{SECRET}@localhost/db",
        f"postgresql://u:100%{SECRET}@localhost/db",
        f"postgresql://u:{SECRET}%00@localhost/db",
        f"postgresql://u:{SECRET} and more@localhost/db",
    ],
)
def test_what_is_no_url_is_refused(refused: Callable[[str], str], url: str) -> None:
    said = refused(url)
    assert "is not the URL of a PostgreSQL" in said
    assert "postgresql://user:password@host:port/database" in said


def test_an_unreachable_server_is_refused(refused: Callable[[str], str]) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        said = refused(f"postgresql://u:{SECRET}@127.0.0.1:{port}/db")
    assert f"The server on 127.0.0.1:{port} cannot be used" in said
    assert "start it, or correct host and port" in said


def test_a_private_server_that_has_just_been_killed_starts_by_itself(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "start", lambda: f"postgresql://lab:{SECRET}@127.0.0.1:1/lab")
    with pytest.raises(LabError) as caught:
        database()
    assert "127.0.0.1:1, labkit's own in " in str(caught.value)
    assert "Expected that it runs. To do: run this again, as it starts by" in str(caught.value)


def test_a_server_without_ssl_where_ssl_is_asked_for_is_refused(
    dsn: Dsn, refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    said = refused(dsn[:])
    assert "rejected SSL upgrade. Expected one that speaks SSL, since PGSSLMODE" in said
    assert "To do: unset that" in said


@pytest.mark.parametrize("mode", ["", "?sslmode=prefer", "?sslmode=allow"])
def test_nobody_is_told_to_unset_an_sslmode_that_asks_for_nothing(
    refused: Callable[[str], str], mode: str
) -> None:
    with server_that(answers_http) as port:
        said = refused(f"postgresql://u:{SECRET}@127.0.0.1:{port}/db{mode}")
    assert "Expected a PostgreSQL that listens there" in said
    assert "SSL, since" not in said


def test_a_server_that_is_not_as_target_session_attrs_asks_is_refused(
    other: str, refused: Callable[[str], str]
) -> None:
    assert "as target_session_attrs asks" in refused(f"{other}?target_session_attrs=standby")


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        ("57P03", "the database system is starting up", "one that has started"),
        ("57P03", "the database system is shutting down", "one that has started"),
        ("28000", 'no pg_hba.conf entry for host "h", no encryption', "write sslmode=require"),
        ("28000", 'no pg_hba.conf entry for host "h", SSL encryption', "ask its administrator"),
        ("28000", 'role "u" is not permitted to log in', "run ALTER ROLE … LOGIN, or name"),
        ("08P01", "SASL authentication failed", "a user and password that it knows"),
        ("55000", 'database "d" is not currently accepting connections', "ALLOW_CONNECTIONS"),
        ("57014", "canceling statement due to statement timeout", "10 s for each statement"),
        ("2BP01", "cannot drop table labkit.orders", "that nothing depends on labkit.orders"),
        ("42809", '"orders" is not a table', "To do: rename what has them"),
        ("08P01", "unsupported startup parameter: options", "ALTER ROLE … SET does the same"),
        ("26000", "prepared statement does not exist", "or a pooler in session mode"),
        ("08P01", "transaction blocks not allowed in statement pooling mode", "a pooler in"),
        ("42704", 'unrecognized configuration parameter "connect_timeout"', "after ?"),
    ],
)
def test_a_server_that_refuses_the_login_is_told_by_its_reason(
    refused: Callable[[str], str], code: str, text: str, expected: str
) -> None:
    with server_that(answers_with(code, text)) as port:
        said = refused(f"postgresql://u:{SECRET}@127.0.0.1:{port}/db")
    assert text in said
    assert expected in said


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), "sslrootcert=FILE"),
        (ssl.SSLCertVerificationError(1, "Hostname mismatch"), "the host as in the certificate"),
        (ssl.SSLError(1, "tlsv1 alert protocol version"), "a server that speaks the same TLS"),
    ],
)
def test_what_goes_wrong_with_tls_is_told_as_that(error: ssl.SSLError, expected: str) -> None:
    said = explain(Dsn("postgresql://u@db.example.com/app?sslmode=verify-full"), error)
    assert expected in said
    assert "start it" not in said


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("sslmode=verify-full", "name it by sslrootcert=FILE; or write sslmode=require"),
        ("sslmode=verify-full&sslrootcert=/nowhere/ca.crt", "Expected that sslrootcert=/nowhere"),
        ("sslmode=require&sslcert=/nowhere/me.crt", "Expected that sslcert=/nowhere/me.crt can be"),
        ("sslmode=bogus", "`sslmode` parameter must be one of: disable"),
        ("target_session_attrs=bogus", "To do: correct the part of the URL after ?"),
    ],
)
def test_options_that_the_driver_cannot_follow_are_told(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, options: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/nowhere")
    assert expected in refused(f"postgresql://u:{SECRET}@127.0.0.1:1/db?{options}")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql:///db?host=127.0.0.1&port=1", "127.0.0.1:1"),
        ("postgresql:///db?host=/nowhere&port=6000", "/nowhere:6000"),
        ("postgresql://[::1]:1/db", "[::1]:1"),
    ],
)
def test_the_place_is_named_wherever_the_url_says_it(
    refused: Callable[[str], str], url: str, place: str
) -> None:
    assert f"The server on {place} cannot be used" in refused(url)


def test_a_number_in_the_text_is_not_taken_for_an_error_code() -> None:
    error = ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 42501)")
    said = explain(Dsn("postgresql://u@127.0.0.1:42501/db"), error)
    assert "Expected a PostgreSQL that listens there" in said


def test_an_unknown_host_is_refused(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")  # asyncpg waits for 10 s
    said = refused(f"postgresql://u:{SECRET}@no-such-host.invalid/db")
    assert "no-such-host.invalid:5432" in said
    assert "a host name that resolves" in said


def test_a_server_that_is_no_postgresql_is_refused(refused: Callable[[str], str]) -> None:
    with server_that(answers_http) as port:
        assert f"127.0.0.1:{port}" in refused(f"postgresql://u:{SECRET}@127.0.0.1:{port}/db")


def test_a_postgresql_older_than_14_is_refused(refused: Callable[[str], str]) -> None:
    with server_that(answers_as_postgresql_13) as port:
        said = refused(f"postgresql://u:{SECRET}@127.0.0.1:{port}/db")
    assert "PostgreSQL 13.22 is too old" in said
    assert "Expected PostgreSQL 14 or later" in said


def test_a_wrong_password_is_refused(dsn: Dsn, refused: Callable[[str], str]) -> None:
    said = refused(at(dsn, "lab"))
    assert "password authentication failed for user" in said
    assert "a user and password that it knows" in said


def test_a_missing_database_is_refused(dsn: Dsn, refused: Callable[[str], str]) -> None:
    said = refused(at(dsn, database="nowhere"))
    assert 'database "nowhere" does not exist' in said
    assert "create it, or correct its name" in said


def test_a_role_that_may_not_create_is_refused(
    dsn: Dsn, other: str, refused: Callable[[str], str]
) -> None:
    role = urlsplit(other).username
    said = refused(at(dsn, role, "postgres"))
    assert "this role may not make tables there" in said
    assert "GRANT CREATE ON DATABASE" in said


def test_a_role_without_a_free_connection_is_refused(
    dsn: Dsn, other: str, refused: Callable[[str], str]
) -> None:
    role = urlsplit(other).username
    run(dsn, f"ALTER ROLE {role} CONNECTION LIMIT 0")
    said = refused(other)
    assert "too many connections for role" in said
    assert "close those of other programs, or raise the limit" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("REVOKE TEMPORARY ON DATABASE {0} FROM PUBLIC, {0}", "GRANT TEMPORARY ON DATABASE"),
        ("ALTER ROLE {0} SET statement_timeout = '300ms'", "(statement_timeout = 300ms). Expected"),
        ("ALTER DATABASE {0} SET lock_timeout = 50", "(lock_timeout = 50ms). Expected 10 s"),
        (
            "ALTER ROLE {0} SET idle_in_transaction_session_timeout = 100",
            "(idle_in_transaction_session_timeout = 100ms). Expected 10 s for each",
        ),
    ],
)
def test_what_notebooks_would_fail_on_later_is_refused_at_once(
    dsn: Dsn, other: str, refused: Callable[[str], str], change: str, expected: str
) -> None:
    run(dsn, change.format(urlsplit(other).username))
    assert expected in refused(other)


@pytest.mark.parametrize("what", ["ROLE", "DATABASE"])
def test_few_connections_are_warned_of(
    dsn: Dsn,
    other: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
) -> None:
    run(dsn, f"ALTER {what} {urlsplit(other).username} CONNECTION LIMIT 20")
    monkeypatch.setenv("DATABASE_URL", other)
    database()
    assert "orders ready (beware: only 19 connections are free" in capsys.readouterr().out


def test_a_read_only_role_is_refused(dsn: Dsn, other: str, refused: Callable[[str], str]) -> None:
    run(dsn, f"ALTER ROLE {urlsplit(other).username} SET default_transaction_read_only = on")
    said = refused(other)
    assert "transactions may only read there" in said
    assert "a server and role that may write" in said


def test_a_misspelt_option_is_refused(other: str, refused: Callable[[str], str]) -> None:
    assert "sslmode" in refused(f"{other}?sslmode=sometimes")


def test_a_refusal_leaves_no_connection_and_no_schema(
    dsn: Dsn, other: str, refused: Callable[[str], str]
) -> None:
    name = urlsplit(other).path[1:]
    run(dsn, f"ALTER ROLE {name} SET default_transaction_read_only = on")
    refused(other)
    left = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'"
    assert any(run(dsn, left) == 0 for _ in range(200))
    assert run(at(dsn, database=name), "SELECT to_regnamespace('labkit') IS NULL")


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can mount a small file system"
)
def test_a_full_disk_is_told_in_words() -> None:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        # Enough for a server, not for the dataset.
        mount = ["mount", "-t", "tmpfs", "-o", "size=60m,mode=755", "tmpfs", name]
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            done = subprocess.run(
                [sys.executable, "-c", "from labkit.server.database import database; database()"],
                cwd=CHECKOUT,
                env=os.environ | {"LABKIT_HOME": name},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert f"labkit's own in {name}/postgresql (LABKIT_HOME moves it), can" in done.stderr
            assert "Expected room for about 100 MB on the server's disk" in done.stderr
            assert "another exception" not in done.stderr
            assert embedded.stop(home := Path(name, "postgresql"))
            assert not (home / "server" / "data" / "postmaster.pid").exists()
        finally:
            subprocess.run(["umount", "-l", name], check=True)
