"""`python -m labkit doctor`: each thing it can find wrong is made wrong here."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from labkit.server import COMPOSE_PLACE, Dsn, embedded
from labkit.server.dataset import DATASET
from labkit.workbook import doctor
from labkit.workbook.kernel import refuse_homeless
from tests.server.test_database import SECRET, answers_as_postgresql_13, at, run, server_that
from tests.server.test_embedded import as_root, gone, until
from tests.stalls import unless_busy

ROOT = doctor.ROOT
PATCH = "import nest_asyncio; nest_asyncio.apply()\n"
Venv = Callable[..., Path]


def labkit_doctor(
    python: Path | str = sys.executable, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command; whatever it finds, it ends in words."""
    done = subprocess.run(
        [str(python), "-m", "labkit", "doctor"],
        cwd=ROOT,
        env=os.environ | {"PYTHONUTF8": "1"} | env,
        capture_output=True,
        encoding="utf-8",
    )
    assert "" == done.stderr
    assert done.returncode == ("✘" in done.stdout)
    return done


def wrong(check: Callable[[], Iterator[doctor.Finding]]) -> str:
    """The one thing that a check finds wrong."""
    (found,) = [finding for finding in doctor.findings(check) if finding.well is False]
    return str(found)


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    def make(*lines: str) -> Path:
        """An environment without packages, but for what the lines of a .pth file add."""
        command = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")]
        subprocess.run(command, check=True)
        paths = {"base": str(tmp_path / "venv")}
        purelib = Path(sysconfig.get_path("purelib", "venv", paths))
        (purelib / "more.pth").write_text("\n".join(lines))
        return Path(sysconfig.get_path("scripts", "venv", paths)) / Path(sys.executable).name

    return make


@pytest.fixture
def role(dsn: Dsn) -> Iterator[str]:
    """The URL of a role that owns nothing, in a database where labkit has made nothing."""
    run(dsn, f"CREATE ROLE visitor LOGIN PASSWORD '{SECRET}'")
    run(dsn, "CREATE DATABASE visited")
    yield at(dsn, "visitor", "visited")
    run(dsn, "DROP DATABASE visited WITH (FORCE)", "DROP ROLE visitor")


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where IPython looks for what it is to run first."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    (startup := tmp_path / "profile_default" / "startup").mkdir(parents=True)
    return startup


locked = pytest.mark.skipif(
    any(found.well is False for found in doctor.findings(doctor.packages)),
    reason="these are not the lock's packages",
)


@locked
@pytest.mark.usefixtures("dsn")
def test_where_all_is_well_it_says_so_line_by_line_and_shows_no_password() -> None:
    done = labkit_doctor()
    assert 0 == done.returncode, done.stdout
    *lines, last = done.stdout.splitlines()
    expected = "machine Python packages disk checkout disk server kernel"
    assert expected.split() == [line.split(": ")[1] for line in lines]
    assert "postgresql://lab:***@" in lines[-2]
    assert "the dataset is there" in lines[-2]
    assert "Nothing is wrong." == last


@pytest.mark.usefixtures("dsn")
def test_it_takes_less_than_ten_seconds() -> None:
    def seconds() -> float:
        began = time.monotonic()
        labkit_doctor()
        return time.monotonic() - began

    assert unless_busy(seconds, lambda took: took < 10) < 10


# Packages


def test_another_version_is_named_with_the_command_that_installs_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "pandas-1.0", "asyncpg-0.31.0":
        (tmp_path / f"{name}.dist-info").mkdir()
        (tmp_path / f"{name}.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: {}\nVersion: {}\n".format(*name.split("-"))
        )
    monkeypatch.syspath_prepend(tmp_path)
    said = wrong(doctor.packages)
    assert "asyncpg is 0.31.0 (expected ==0.32.0), pandas is 1.0 (expected ==3" in said
    assert said.endswith(f"To do: {doctor.install()}")


def test_without_any_package_it_still_works_and_gives_the_command(venv: Venv) -> None:
    python = venv()
    said = labkit_doctor(python=python).stdout
    for module in "packaging", "asyncpg", "ipykernel":
        assert f"No module named '{module}'. To do: cd '{ROOT}'" in said
    assert f"'{python}' -m pip install -r requirements.txt" in said


@pytest.mark.parametrize("command", ["start", "status", "run", "reset", "bundle", "pages"])
def test_without_any_package_other_commands_give_the_same_command(venv: Venv, command: str) -> None:
    process = [str(python := venv()), "-m", "labkit", command]
    done = subprocess.run(process, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert re.match(r"No module named '\w+'\. Expected .*\. To do: cd '", done.stderr)
    assert done.stderr.endswith(f"'{python}' -m pip install -r requirements.txt\n")
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))


def test_the_command_can_be_pasted_into_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path / "a learner's")
    doctor.ROOT.mkdir()
    command = doctor.install().replace("install -r requirements.txt", "--version")
    shell = ["powershell", "-Command"] if sys.platform == "win32" else ["sh", "-c"]
    said = subprocess.run([*shell, command], capture_output=True, encoding="utf-8", check=True)
    assert said.stdout.startswith("pip ")


def test_outside_of_an_environment_the_command_makes_one() -> None:
    code = "from labkit.workbook.doctor import install; print(install())"
    python: Any = getattr(sys, "_base_executable")  # noqa: B009 (which has no type)
    said = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert "-m venv .venv" in said.stdout, said.stderr
    assert said.stdout.strip().endswith("python -m pip install -r requirements.txt")


def test_from_a_bundle_the_command_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wheels").mkdir()
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert "pip install --no-index --find-links wheels -r requirements.txt" in doctor.install()


# The machine


def test_a_busy_machine_is_told() -> None:
    with ExitStack() as stack:
        for _ in range(2 * (os.cpu_count() or 1)):
            hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(hog.wait)
            stack.callback(hog.kill)
        (found,) = doctor.machine()
    assert found.well is None, found
    assert "It is busy: expected at most 5 ms, and at least 25%" in str(found)


@locked
@pytest.mark.usefixtures("dsn")
def test_a_program_in_composes_place_is_told_and_harms_nothing() -> None:
    host, _, port = COMPOSE_PLACE.partition(":")
    try:
        listener = socket.create_server((host, int(port)))
    except OSError:
        pytest.skip("something is there already")
    with listener:
        done = labkit_doctor()
    assert 0 == done.returncode, done.stdout
    assert "well: server: embedded (no DATABASE_URL, 127.0.0.1:54320 did not answer" in done.stdout


@pytest.mark.skipif(not as_root or sys.platform != "linux", reason="needs a network of its own")
@pytest.mark.usefixtures("dsn")
def test_a_loopback_interface_that_is_off_is_told() -> None:
    if subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        pytest.skip("that is not allowed here")
    code = "from labkit.workbook.doctor import findings, server; print(*findings(server))"
    command = ["unshare", "--net", sys.executable, "-c", code]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8").stdout
    assert re.search("✘ wrong: server: The server on 127.0.0.1:.*Network is unreachable", said)


def test_a_checkout_that_cannot_be_written_to_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ROOT", tmp_path / "nowhere")
    assert wrong(doctor.checkout).endswith(
        "To do: copy the workbook to a directory where you may write"
    )


def test_little_room_for_temporary_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "TEMPORARY_MB", 10**9)
    said = wrong(doctor.checkout)
    assert f"MB free for {tempfile.gettempdir()}. Expected" in said
    assert "set TMPDIR" in said


def test_a_home_that_may_not_be_entered_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise PermissionError(13, "Permission denied", "/root/.local")

    monkeypatch.setattr(embedded, "place", refuse)
    assert wrong(doctor.server).endswith(
        "Permission denied: '/root/.local'. To do: set HOME to a directory where you may write"
    )


# PostgreSQL


@pytest.mark.skipif(not as_root, reason="only root can mount a small file system")
def test_a_full_disk_is_told() -> None:
    home = Path(tempfile.mkdtemp(prefix="labkit-full-")).resolve()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", str(home)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        said = labkit_doctor(LABKIT_HOME=str(home)).stdout
        until(lambda: gone(home))
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)
        shutil.rmtree(home)
    assert f"✘ wrong: disk: 21 MB free for {home}" in said
    assert "Expected 200 MB. To do: make room, or set LABKIT_HOME" in said
    assert "✘ wrong: server: The private PostgreSQL in" in said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://localhost/lab", "DATABASE_URL is not the URL of a PostgreSQL"),
        (f"postgresql://lab:{SECRET}@127.0.0.1:1/lab", "To do: start it, or correct host and port"),
        (f"postgresql://lab:{SECRET}@localhost.invalid/lab", "Expected a host name that resolves"),
    ],
)
def test_a_wrong_database_url_is_told(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RES_OPTIONS", "timeout:1 attempts:1")
    monkeypatch.setenv("DATABASE_URL", url)
    found = wrong(doctor.server)
    assert said in found
    assert "unset" in found
    assert SECRET not in found


def test_a_wrong_password_is_told(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", role.replace(SECRET, "guessed"))
    assert "Expected a user and password that it knows" in wrong(doctor.server)


def test_a_role_without_rights_is_told_and_nothing_is_made(
    dsn: Dsn, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", role)
    visited = at(dsn, database="visited")
    assert "GRANT CREATE ON DATABASE" in wrong(doctor.server)
    run(visited, "GRANT CREATE ON DATABASE visited TO visitor")
    assert "the dataset will be made at first use" in str(*doctor.server())
    run(visited, "CREATE SCHEMA labkit")  # by somebody else; and it was not there yet
    for grant in "USAGE", "CREATE":
        assert "Expected a role that owns the schema labkit" in wrong(doctor.server)
        run(visited, f"GRANT {grant} ON SCHEMA labkit TO visitor")
    assert "the dataset will be made at first use" in str(*doctor.server())


def test_a_dataset_whose_values_were_changed_is_told(
    dsn: Dsn, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited = at(dsn, database="visited")
    changed = "UPDATE labkit.orders SET amount = 0 WHERE id = 7"
    run(visited, "CREATE SCHEMA labkit", *DATASET.split(";\n")[:-1], changed)
    monkeypatch.setenv("DATABASE_URL", visited[:])
    assert "with other values than it should have: `labkit reset`" in str(*doctor.server())


def test_a_role_that_may_only_read_is_told(
    dsn: Dsn, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dsn, "ALTER ROLE visitor SET default_transaction_read_only = on")
    monkeypatch.setenv("DATABASE_URL", role)
    assert "Expected a server and role that may write" in wrong(doctor.server)


def test_a_role_with_few_connections_is_told(
    dsn: Dsn, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dsn, "GRANT CREATE ON DATABASE visited TO visitor", "ALTER ROLE visitor CONNECTION LIMIT 9")
    monkeypatch.setenv("DATABASE_URL", role)
    (found,) = doctor.server()
    assert found.well is None, found  # as `database` takes it, and says so
    assert re.search(r"PostgreSQL [\d.]+, 8 connections free, .* Expected 50 free", str(found))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER DATABASE visited SET statement_timeout = 50", "statement_timeout = 50ms"),
        ("REVOKE TEMPORARY ON DATABASE visited FROM PUBLIC", "may not make temporary tables"),
    ],
)
def test_what_a_database_does_not_give_is_told(
    dsn: Dsn, role: str, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    run(dsn, "GRANT CREATE ON DATABASE visited TO visitor", change)
    monkeypatch.setenv("DATABASE_URL", role)
    assert said in wrong(doctor.server)


def test_a_table_in_the_dataset_s_place_is_told(
    dsn: Dsn, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited = at(dsn, database="visited")
    run(visited, "CREATE SCHEMA labkit", "CREATE TABLE labkit.orders AS SELECT 'precious' AS it")
    monkeypatch.setenv("DATABASE_URL", visited)
    assert "labkit.orders was left as it is" in wrong(doctor.server)


def test_a_server_with_few_free_connections_and_then_none_is_told(dsn: Dsn) -> None:
    with ExitStack() as stack:

        def connect(connections: int) -> None:
            for _ in range(connections):
                stack.enter_context(closing(psycopg2.connect(dsn[:])))

        connect(51)
        assert [True, None] == [found.well for found in doctor.server()]  # the disk, and this
        with pytest.raises(psycopg2.OperationalError, match="too many clients"):
            connect(100)
        assert "too many clients already. Expected about 50 free" in wrong(doctor.server)


def test_a_server_that_is_too_old_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with server_that(answers_as_postgresql_13) as port:
        monkeypatch.setenv("DATABASE_URL", f"postgresql://lab:lab@127.0.0.1:{port}/lab")
        assert "PostgreSQL 13.22 is too old. Expected PostgreSQL 14" in wrong(doctor.server)


def test_a_server_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://lab:lab@127.0.0.1:{silent.getsockname()[1]}/lab"
        monkeypatch.setenv("DATABASE_URL", url)
        assert "no answer. Expected a connection, and each answer, in time. To do" in wrong(
            doctor.server
        )


# The kernel


def test_nest_asyncio_in_a_startup_file_is_found_in_the_kernel(profile: Path) -> None:
    (profile / "00-patch.py").write_text(PATCH)
    said = wrong(doctor.kernel)
    assert "This process runs on an event loop patched by nest_asyncio" in said
    assert f"To do: look for nest_asyncio in {profile.parent}, in *.pth in " in said


@locked
def test_nest_asyncio_in_the_environment_itself_is_found(venv: Venv, dsn: Dsn) -> None:
    python = venv(sysconfig.get_path("purelib"), str(ROOT), PATCH)
    said = labkit_doctor(python=python, DATABASE_URL=dsn[:]).stdout
    assert "✘ wrong: kernel: This process runs on an event loop patched by nest_asyncio" in said
    assert f"in *.pth in {next(python.parents[1].rglob('more.pth')).parent}, in " in said
    assert "✘ wrong: server: This process runs on an event loop patched by nest_asyncio" in said
    assert 2 == said.count("✘ wrong")


def test_asking_the_kernel_leaves_no_loop_open() -> None:
    def still_open() -> int:
        loops = [o for o in gc.get_objects() if issubclass(type(o), asyncio.BaseEventLoop)]
        return sum(not loop.is_closed() for loop in loops)

    gc.collect()  # those that earlier tests dropped
    before = still_open()
    with ThreadPoolExecutor() as pool:
        assert pool.submit(doctor.findings, doctor.kernel).result()[-1].well
    assert still_open() <= before


def test_another_kernel_of_the_same_name_is_not_the_one_it_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    spec = {"argv": ["nothing"], "display_name": "another", "language": "python"}
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert [True] == [finding.well for finding in doctor.findings(doctor.kernel)]


@pytest.mark.skipif(sys.platform == "win32", reason="there, every user has a home directory")
@pytest.mark.parametrize("command", ["doctor", "run", "start"])
def test_a_user_without_a_home_directory_is_told(command: str) -> None:
    code = f"""
import pwd, sys
pwd.getpwuid = {{}}.__getitem__
from labkit.__main__ import main
sys.exit(main([{command!r}]))"""
    env = {name: value for name, value in os.environ.items() if name != "HOME"}
    process = [sys.executable, "-c", code]
    done = subprocess.run(process, cwd=ROOT, env=env, capture_output=True, encoding="utf-8")
    assert "This user has no home directory to write to: Could not" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there, HOME says nothing")
def test_a_home_that_cannot_be_written_to_is_told_and_nothing_else_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()  # root may write to every directory
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    for name in "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "XDG_DATA_HOME":
        monkeypatch.delenv(name, raising=False)
    said = wrong(doctor.kernel)  # and IPython, which would warn, was not asked
    assert f"no home directory to write to: [Errno 20] Not a directory: '{tmp_path}" in said
    assert "To do: set HOME to a directory where you may write" in said
    refuse_homeless(writes=False)  # as `run`, whose kernels need no such place


def test_a_kernel_without_labkit_is_told(venv: Venv, dsn: Dsn) -> None:
    python = venv(sysconfig.get_path("purelib"))
    said = labkit_doctor(python=python, DATABASE_URL=dsn[:]).stdout
    assert "✘ wrong: kernel: ModuleNotFoundError: No module named 'labkit'. To do: cd " in said


@pytest.mark.usefixtures("dsn")
def test_a_kernel_that_dies_is_told_with_its_last_words(profile: Path) -> None:
    dies = "import os, sys\nos.write(2, b'out of ink\\n')\nos._exit(1)"
    (profile / "00-die.py").write_text(dies)
    said = labkit_doctor(IPYTHONDIR=str(profile.parents[1])).stdout
    assert "Kernel died before replying to kernel_info. out of ink." in said
    assert f"To do: correct what IPython runs first, in {profile.parent}" in said


def test_a_kernel_that_does_not_answer_is_told(
    profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SECONDS", 1)
    (profile / "00-hang.py").write_text("import time\ntime.sleep(600)")
    assert "Kernel didn't respond in 1 seconds" in wrong(doctor.kernel)
