"""`python -m labkit reset`: what it says, what it asks, what it removes, what it leaves."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from labkit.server import Dsn
from labkit.server.dataset import ROWS
from tests.home import own_home
from tests.server.test_database import SECRET, at, run
from tests.server.test_embedded import Kernel, gone, until

CHECKOUT = Path(__file__).parents[2]
numbers = itertools.count()
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

LABKIT = """
import importlib, sys
importlib.import_module("labkit.server.database").COMPOSE_URL = sys.argv[1]
from labkit.__main__ import main
sys.exit(main(sys.argv[2:]))
"""
NOWHERE = "postgresql://lab:lab@127.0.0.1:1/lab"

# Everything that is not labkit's: relations, schemas, functions, roles, settings.
THEIRS = """
SELECT string_agg(it, E'\\n' ORDER BY it) FROM (
    SELECT concat_ws(' ', relname, relkind, relacl, n.oid::regnamespace) FROM pg_class
        JOIN pg_namespace n ON n.oid = relnamespace
        WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('labkit', 'information_schema')
    UNION ALL SELECT concat_ws(' ', nspname, nspacl) FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'labkit'
    UNION ALL SELECT concat_ws(' ', proname, prosrc) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT concat_ws(' ', rolname, rolconfig, rolconnlimit) FROM pg_roles
    UNION ALL SELECT s::text FROM pg_db_role_setting AS s
) AS everything (it)
"""
TABLES = "public.orders", "shop.customers"


def belongings(url: str) -> list[str]:
    """What other people have in that database, with the contents of their tables."""
    rows = "SELECT string_agg(t::text, E'\\n' ORDER BY t) FROM {} AS t"
    return [run(url, THEIRS), *(run(url, rows.format(table)) for table in TABLES)]


@pytest.fixture
def theirs(dsn: Dsn) -> Iterator[str]:
    """The URL of a database with other people's things, of its owner, who is no superuser."""
    name = f"theirs{next(numbers)}"
    run(dsn, f"CREATE ROLE {name} LOGIN PASSWORD '{SECRET}'")
    run(dsn, f"CREATE DATABASE {name} OWNER {name}")
    url = at(dsn, name, name)
    run(
        url,
        "CREATE TABLE orders AS SELECT i AS id, 'mine' AS note FROM generate_series(1, 50) i",
        "CREATE SCHEMA shop CREATE TABLE customers (id serial PRIMARY KEY, name text)",
        "INSERT INTO shop.customers (name) VALUES ('Ada'), ('Grace')",
        "CREATE VIEW customers AS SELECT name FROM shop.customers",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    yield url
    run(dsn, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


@pytest.fixture
def home() -> Iterator[Path]:
    """For LABKIT_HOME; its path has spaces and letters that are not ASCII."""
    with own_home("labkit ñ ü ") as outer:
        yield outer / "the lab"
        until(lambda: gone(outer))


def labkit(
    *arguments: str, compose: str = NOWHERE, typed: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m labkit`; with something typed, at a terminal."""
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    stdin: int = subprocess.DEVNULL
    with contextlib.ExitStack() as stack:
        if typed is not None:
            import pty

            terminal, stdin = pty.openpty()
            stack.callback(os.close, terminal)
            stack.callback(os.close, stdin)
            os.write(terminal, typed.encode())
        done = subprocess.run(
            [sys.executable, "-c", LABKIT, compose, *arguments],
            cwd=CHECKOUT,
            env=kept | {"PYTHONIOENCODING": "utf-8"} | env,
            stdin=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done


def made(url: str) -> None:
    """Let the lab make its schema there."""
    code = "from labkit.server.database import database; database()"
    env = os.environ | {"DATABASE_URL": url}
    subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=env, check=True)
    assert run(url, "SELECT count(*) FROM labkit.orders") == ROWS


def is_there(url: str) -> bool:
    return bool(run(url, "SELECT to_regnamespace('labkit') IS NOT NULL"))


# A server of the user's


def test_it_drops_the_schema_and_nothing_else(theirs: str) -> None:
    before = belongings(theirs)
    made(theirs)
    done = labkit("reset", "--yes", DATABASE_URL=theirs)
    assert 0 == done.returncode, done.stderr
    assert f"from DATABASE_URL: {Dsn(theirs)}" in done.stdout
    assert "\n  table labkit.orders\n" in done.stdout
    assert "nothing else" in done.stdout
    assert not is_there(theirs)
    assert before == belongings(theirs)


def test_it_says_so_when_there_is_nothing(theirs: str) -> None:
    done = labkit("reset", DATABASE_URL=theirs)
    assert 0 == done.returncode
    assert "Nothing to remove: there is no schema labkit." in done.stdout


def test_the_compose_server_is_reset_where_it_answers(theirs: str) -> None:
    made(theirs)
    done = labkit("reset", "--yes", compose=theirs)
    assert 0 == done.returncode, done.stderr
    assert "Compose" in done.stdout
    assert not is_there(theirs)


def test_without_a_terminal_it_removes_nothing_and_says_what_to_do(theirs: str) -> None:
    made(theirs)
    done = labkit("reset", DATABASE_URL=theirs)
    assert 2 == done.returncode
    assert "table labkit.orders" in done.stdout
    assert "--yes" in done.stderr
    assert is_there(theirs)


@posix_only
@pytest.mark.parametrize("typed", ["\n", "n\n", "no\n", "maybe\n", "\x04"])
def test_it_takes_anything_but_yes_for_no(theirs: str, typed: str) -> None:
    run(theirs, "CREATE SCHEMA labkit")
    done = labkit("reset", typed=typed, DATABASE_URL=theirs)
    assert 2 == done.returncode
    assert "Drop it? [y/N]" in done.stdout
    assert "Nothing was changed." in done.stderr
    assert is_there(theirs)


@posix_only
@pytest.mark.parametrize("typed", ["y\n", "Yes\n"])
def test_it_asks_and_takes_yes_for_yes(theirs: str, typed: str) -> None:
    run(theirs, "CREATE SCHEMA labkit")
    done = labkit("reset", typed=typed, DATABASE_URL=theirs)
    assert 0 == done.returncode
    assert not is_there(theirs)


@contextlib.contextmanager
def asked(url: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A reset that has shown its list and waits for an answer, and the terminal to type it."""
    import pty

    terminal, stdin = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "labkit", "reset"],
        cwd=CHECKOUT,
        env=os.environ | {"DATABASE_URL": url},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert "  schema labkit\n" in iter(process.stdout.readline, "")
        yield process, terminal
    os.close(terminal)
    os.close(stdin)


@posix_only
def test_control_c_is_a_no(theirs: str) -> None:
    run(theirs, "CREATE SCHEMA labkit")
    with asked(theirs) as (process, _):
        while process.poll() is None:  # again, should it have come just before the answer is read
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
    assert 130 == process.returncode
    assert is_there(theirs)


@posix_only
def test_what_came_after_the_list_was_shown_stops_it(theirs: str) -> None:
    made(theirs)
    with asked(theirs) as (process, terminal):
        run(theirs, "CREATE TABLE labkit.late (a int)", "DELETE FROM labkit.orders WHERE id = 1")
        os.write(terminal, b"y\n")
        _, said = process.communicate(timeout=20)
    assert 2 == process.returncode
    assert "table labkit.late came into it" in said
    assert "labkit.orders" not in said  # which was on the list, if not just so
    assert is_there(theirs)


def test_what_the_lab_did_not_make_is_named(theirs: str) -> None:
    made(theirs)
    run(theirs, "CREATE TABLE labkit.theirs AS SELECT 1 AS a", "CREATE SEQUENCE labkit.draws")
    done = labkit("reset", DATABASE_URL=theirs)
    assert 2 == done.returncode
    assert "\n  table labkit.theirs\n" in done.stdout
    assert "\n  sequence labkit.draws\n" in done.stdout
    assert "Other tables may not be labkit's." in done.stdout
    assert is_there(theirs)


def test_the_dataset_is_named_only_where_it_is_labkit_s(theirs: str) -> None:
    run(theirs, "CREATE SCHEMA labkit", "CREATE TABLE labkit.orders AS SELECT 'precious' AS it")
    done = labkit("reset", DATABASE_URL=theirs)
    assert 2 == done.returncode
    assert "(The dataset is not among these. The tables may not be labkit's.)" in done.stdout
    assert is_there(theirs)


@pytest.mark.parametrize(
    ("thing", "named"),
    [
        ("CREATE VIEW seen AS SELECT id FROM labkit.orders", "on public.seen"),
        ("CREATE VIEW labkit AS SELECT id FROM labkit.orders", "on public.labkit"),
        (
            "CREATE TABLE bought (id int CONSTRAINT known REFERENCES labkit.orders)",
            "known on public.bought",
        ),
        ("CREATE TABLE kept (a labkit.orders)", "public.kept.a"),
        (
            "CREATE TABLE labkit.years (y int) PARTITION BY LIST (y); "
            "CREATE TABLE kept PARTITION OF labkit.years FOR VALUES IN (2026)",
            "table public.kept",
        ),
        ("CREATE STATISTICS kept ON id, amount FROM labkit.orders", "public.kept"),
    ],
)
def test_what_depends_on_the_schema_from_outside_stops_it(
    theirs: str, thing: str, named: str
) -> None:
    made(theirs)
    run(theirs, thing)
    before = belongings(theirs)
    done = labkit("reset", "--yes", DATABASE_URL=theirs)
    assert 2 == done.returncode
    assert named in done.stderr
    assert "To do:" in done.stderr
    assert is_there(theirs)
    assert before == belongings(theirs)


def test_what_depends_on_the_schema_from_inside_goes_with_it(theirs: str) -> None:
    made(theirs)
    run(
        theirs,
        "CREATE VIEW labkit.seen AS SELECT id FROM labkit.orders",
        "CREATE TABLE labkit.more (id serial PRIMARY KEY, o int REFERENCES labkit.orders, t text)",
        "CREATE FUNCTION labkit.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE TYPE labkit.mood AS ENUM ('good')",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA labkit GRANT SELECT ON TABLES TO PUBLIC",
    )
    done = labkit("reset", "--yes", DATABASE_URL=theirs)
    assert 0 == done.returncode, done.stderr
    for thing in ("view labkit.seen", "function labkit.f()", "type labkit.mood"):
        assert thing in done.stdout
    assert not is_there(theirs)


def test_a_schema_in_use_is_left_as_it_is(theirs: str) -> None:
    made(theirs)
    with closing(psycopg2.connect(theirs)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM labkit.orders LIMIT 1")  # a transaction is open now
        done = labkit("reset", "--yes", DATABASE_URL=theirs)
    assert 2 == done.returncode
    assert "in use" in done.stderr
    assert is_there(theirs)


def test_of_two_at_once_the_second_finds_it_gone(theirs: str) -> None:
    made(theirs)
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM "
    waits += "pg_database WHERE datname = current_database())"
    with ThreadPoolExecutor(1) as pool, closing(psycopg2.connect(theirs)) as first:
        first.cursor().execute("DROP SCHEMA labkit CASCADE")
        second = pool.submit(labkit, "reset", "--yes", DATABASE_URL=theirs)
        until(lambda: run(theirs, waits))
        first.commit()
        assert (0, "") == (second.result().returncode, second.result().stderr)


def test_another_role_s_schema_is_left_as_it_is(theirs: str, dsn: Dsn) -> None:
    database = urlsplit(theirs).path[1:]
    run(at(dsn, database=database), "CREATE SCHEMA labkit", "CREATE TABLE labkit.x AS SELECT 1")
    run(at(dsn, database=database), f"GRANT USAGE ON SCHEMA labkit TO {database}")
    done = labkit("reset", "--yes", DATABASE_URL=theirs)
    assert 2 == done.returncode
    assert "must be owner of schema labkit" in done.stderr
    assert "Expected a role that owns the schema labkit" in done.stderr
    assert is_there(theirs)


def test_a_server_that_is_not_there_is_told_in_words() -> None:
    done = labkit("reset", "--yes", DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:1/d")
    assert 2 == done.returncode
    assert "127.0.0.1:1 cannot be used" in done.stderr
    assert "To do:" in done.stderr


# The private server


def test_the_private_server_is_stopped_and_deleted(home: Path) -> None:
    kernel = Kernel(home / "postgresql")
    assert kernel.start().startswith("postgresql://")
    kernel.end()  # its server may still run
    done = labkit("reset", "--yes", LABKIT_HOME=str(home))
    assert 0 == done.returncode, done.stderr
    assert "embedded (no DATABASE_URL, no" in done.stdout
    assert "deletes that directory, and nothing else" in done.stdout
    assert [] == list(home.iterdir())
    assert gone(home)
    again = labkit("reset", LABKIT_HOME=str(home))
    assert 0 == again.returncode
    assert "Nothing to remove" in again.stdout
    assert [] == list(home.iterdir())


def test_what_earlier_versions_left_in_the_directory_goes_with_it(home: Path) -> None:
    (old := home / "postgresql" / "binaries-0.6.0").mkdir(parents=True)
    for name in "kernels.lock", "start.lock", "supervisor.lock":
        (old.parent / name).touch()
    done = labkit("reset", "--yes", LABKIT_HOME=str(home))
    assert 0 == done.returncode, done.stderr
    assert [] == list(home.iterdir())


def test_a_directory_that_holds_something_else_is_left_as_it_is(home: Path) -> None:
    (home / "postgresql" / "server").mkdir(parents=True)
    (home / "postgresql" / "thesis.txt").write_text("years of work")
    done = labkit("reset", "--yes", LABKIT_HOME=str(home))
    assert 2 == done.returncode
    assert "it holds thesis.txt, which is not labkit's" in done.stderr
    assert "years of work" == (home / "postgresql" / "thesis.txt").read_text()
    assert (home / "postgresql" / "server").exists()


def test_a_private_server_in_use_is_left_as_it_is(home: Path) -> None:
    kernel = Kernel(home / "postgresql")
    url = kernel.start()
    done = labkit("reset", "--yes", LABKIT_HOME=str(home))
    assert 2 == done.returncode
    assert "is in use, and was left as it is" in done.stderr
    assert 1 == run(url, "SELECT 1")
    kernel.end()


def test_what_else_is_in_the_directory_stays(home: Path) -> None:
    home.mkdir()
    home.chmod(0o755)
    (home / "server").mkdir()
    (home / "server" / "notes").write_text("mine")
    kernel = Kernel(home / "postgresql")
    kernel.start()
    kernel.end()
    assert 0 == labkit("reset", "--yes", LABKIT_HOME=str(home)).returncode
    assert [home / "server"] == list(home.iterdir())
    assert "mine" == (home / "server" / "notes").read_text()


def test_a_new_server_is_made_after_a_reset(home: Path) -> None:
    for _ in range(2):
        kernel = Kernel(home / "postgresql")
        assert 1 == run(kernel.start(), "SELECT 1")
        kernel.end()
        assert 0 == labkit("reset", "--yes", LABKIT_HOME=str(home)).returncode


def test_without_a_terminal_the_private_server_stays(home: Path) -> None:
    kernel = Kernel(home / "postgresql")
    kernel.start()
    kernel.end()
    done = labkit("reset", LABKIT_HOME=str(home))
    assert 2 == done.returncode
    assert "--yes" in done.stderr
    assert (home / "postgresql" / "server" / "data").exists()


def test_a_reset_of_another_server_leaves_and_names_the_private_one(
    home: Path, theirs: str
) -> None:
    kernel = Kernel(home / "postgresql")
    kernel.start()
    kernel.end()
    done = labkit("reset", "--yes", DATABASE_URL=theirs, LABKIT_HOME=str(home))
    assert 0 == done.returncode
    assert f"The embedded server in {home / 'postgresql'} is another one" in done.stdout
    assert (home / "postgresql" / "server" / "data").exists()
