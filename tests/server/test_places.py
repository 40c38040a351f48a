"""One directory, seen from elsewhere: copied, deleted, replaced, mounted, of another machine."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from labkit.errors import LabError
from labkit.server import embedded, programs, supervisor
from labkit.server.home import alone, here, place, serving, write_record
from tests.server.test_embedded import (
    CHECKOUT,
    Begin,
    as_root,
    ask_server,
    gone,
    home,
    kernel,
    posix_only,
    servers,
    supervisors,
    until,
)

__all__ = ["home", "kernel"]  # fixtures
NAMESPACE = ["unshare", "--ipc", "--pid", "--fork", "--mount-proc"]
# A root of its own, through which everything can be reached as before.
ROOT = """
mount -t tmpfs -o mode=755 tmpfs "$0"
for it in /*; do
    if [ -L "$it" ]; then cp -a "$it" "$0"
    elif [ -d "$it" ]; then mkdir "$0$it" && mount --rbind "$it" "$0$it"; fi
done
exec chroot "$0" "$@"
"""
in_linux_as_root = pytest.mark.skipif(
    not as_root or sys.platform != "linux", reason="only root on Linux can make a namespace"
)


def replies(python: list[str], home: Path) -> str:
    """What a process that is run so says when it starts the server of this home."""
    code = "from labkit.server import embedded; from labkit import LabError\n"
    code += "try: print(embedded.start())\nexcept LabError as error: print(error)"
    env = os.environ | {"LABKIT_HOME": str(home.parent)}
    command = [*python, sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=CHECKOUT, env=env, stdout=subprocess.PIPE, text=True, timeout=60
    ).stdout


@in_linux_as_root
def test_a_server_in_use_is_refused_from_another_pid_namespace(home: Path, kernel: Begin) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("namespaces are not allowed here")
    url = kernel().start()
    (server,) = servers(home)
    said = replies(NAMESPACE, home)
    assert f"The private PostgreSQL in {home} is used on the machine {socket.gethostname()}" in said
    assert "in another container or root" in said
    assert "Expected that its directory is used from one place only" in said
    assert "To do: end what uses it there; or set LABKIT_HOME" in said
    assert servers(home) == [server]
    assert ask_server(url) == 1


@in_linux_as_root
def test_a_server_whose_namespace_has_ended_is_known_to_be_dead(home: Path, kernel: Begin) -> None:
    """As in a container that was killed: host and pids say nothing, the lock does."""
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode:
        pytest.skip("namespaces are not allowed here")
    assert replies(NAMESPACE, home).startswith("postgresql://")
    assert (home / "server" / "data" / "postmaster.pid").exists()  # killed with its namespace
    assert ask_server(kernel().start()) == 1


@in_linux_as_root
def test_a_chroot_with_the_same_path_ends_no_server_outside(
    home: Path, kernel: Begin, tmp_path: Path
) -> None:
    """Inside, another directory has the same path; the processes of the machine are all seen."""
    root, own = tmp_path / "root", tmp_path / "own"
    root.mkdir()
    own.mkdir(mode=0o755)
    url = kernel().start()
    (server,) = servers(home)
    above = home.parents[1]
    script = 'mount --rbind / "$0" && mount --bind "$1" "$0$2" && shift 2 && exec chroot "$0" "$@"'
    chroot = ["unshare", "--mount", "sh", "-c", script, str(root), str(own), str(above)]
    if subprocess.run([*chroot, "true"], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    inside = replies(chroot, home)
    assert inside.startswith("postgresql://"), inside
    assert url != inside.strip()
    until(lambda: servers(home) == [server])
    assert ask_server(url) == 1


@in_linux_as_root
def test_the_same_directory_behind_another_root_is_refused(
    home: Path, kernel: Begin, tmp_path: Path
) -> None:
    chroot = ["unshare", "--mount", "sh", "-c", ROOT, str(tmp_path)]
    if subprocess.run([*chroot, "true"], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    url = kernel().start()
    assert "in another container or root" in replies(chroot, home)
    assert ask_server(url) == 1


def test_what_another_machine_left_is_not_believed_dead(home: Path, kernel: Begin) -> None:
    first = kernel()
    first.start()
    pid_file = home / "server" / "data" / "postmaster.pid"
    left = pid_file.read_bytes()
    first.end()
    until(lambda: gone(home))
    record = json.loads((home / "running.json").read_text())
    record["here"] = {"host": "the-other", "boot": "theirs", "root": "1:2"}
    (home / "running.json").write_text(json.dumps(record))
    pid_file.write_bytes(left)
    if as_root:
        shutil.chown(pid_file, "nobody")
    said = kernel().start()
    assert "was not stopped on the machine the-other" in said
    assert f"see that no PostgreSQL works on it there, and delete {pid_file}" in said
    assert left == pid_file.read_bytes()
    with pytest.raises(LabError, match="was not stopped on the machine the-other"):
        embedded.remove(home)
    assert left == pid_file.read_bytes()
    pid_file.unlink()  # as told
    assert ask_server(kernel().start()) == 1


@pytest.mark.parametrize("same", ["host", "boot"])
def test_what_this_machine_left_before_it_was_restarted_is_dead(
    home: Path, kernel: Begin, same: str
) -> None:
    first = kernel()
    first.start()
    pid_file = home / "server" / "data" / "postmaster.pid"
    left = pid_file.read_bytes()
    first.end()
    until(lambda: gone(home))
    record = json.loads((home / "running.json").read_text())
    record["here"] = {"host": "x", "boot": "x"} | {same: here().get(same, "x")}
    if same not in here():
        pytest.skip("this platform does not say")
    (home / "running.json").write_text(json.dumps(record))
    pid_file.write_bytes(left)
    if as_root:
        shutil.chown(pid_file, "nobody")
    assert ask_server(kernel().start()) == 1


@posix_only
def test_a_supervisor_of_a_deleted_home_leaves_the_new_one_alone(home: Path, kernel: Begin) -> None:
    one = kernel()
    old = one.start()
    shutil.rmtree(home)
    two = kernel()
    url = two.start()
    assert url != old
    (new,) = [p for p in servers(home) if p.pid == json.loads(record(home))["server"]]
    one.end()
    until(lambda: servers(home) == [new])
    assert ask_server(url) == 1


def record(home: Path) -> str:
    return (home / "running.json").read_text()


@posix_only
def test_a_kernel_whose_home_was_deleted_moves_to_the_new_one(home: Path, kernel: Begin) -> None:
    one = kernel()
    old = one.start()
    shutil.rmtree(home)
    assert old != one.start()
    until(lambda: len(servers(home)) == 1)
    assert one.start() == kernel().start()


@posix_only
def test_a_copied_home_gets_a_server_of_its_own(home: Path, kernel: Begin, tmp_path: Path) -> None:
    url = kernel().start()
    (server,) = servers(home)
    copy = home.parents[1] / "a copy" / "postgresql"
    copy.parent.mkdir(mode=0o755)
    subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
    said = replies([], copy).strip()
    assert said.startswith("postgresql://"), said
    assert url != said
    until(lambda: gone(copy))
    assert servers(home) == [server]
    assert ask_server(url) == 1


@posix_only
def test_an_orphan_is_ended_before_the_next_is_started(home: Path, kernel: Begin) -> None:
    """Supervisor and guard are both killed, so nobody stops the server."""
    one = kernel()
    url = one.start()
    (orphan,), (supervisor,) = servers(home), supervisors(home)
    for process in [*supervisor.children(), supervisor]:
        process.kill()
    psutil.wait_procs([supervisor], timeout=0.2)
    assert url == one.start()
    (server,) = servers(home)
    assert orphan.pid != server.pid
    assert ask_server(url) == 1


@posix_only
def test_the_server_goes_when_supervisor_and_kernel_are_killed(home: Path, kernel: Begin) -> None:
    one = kernel()
    one.start()
    for process in supervisors(home):
        process.kill()
    one.end(signal.SIGKILL)
    until(lambda: gone(home), seconds=10)


def test_twenty_calls_start_one_supervisor(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(home.parent))
    started: list[str] = []
    start = subprocess.Popen.__init__

    def count(self: subprocess.Popen[str], command: list[str], **options: object) -> None:
        started.extend(word for word in command if word == "labkit.server.supervisor")
        start(self, command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess.Popen, "__init__", count)
    assert len({embedded.start() for _ in range(20)}) == 1
    assert started == ["labkit.server.supervisor"]
    embedded.stop(place())
    assert gone(home)


# What cannot work is told before anything is made


def test_another_major_version_is_told_and_left_untouched(home: Path, kernel: Begin) -> None:
    data = home / "server" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    (data / "postmaster.pid").write_text("1\n")
    before = {path: path.stat().st_mtime_ns for path in (home / "server").rglob("*")}
    said = kernel().start()
    assert (
        f"The private server's data in {home} are of PostgreSQL 17, and were left as they" in said
    )
    assert "Expected 18" in said
    assert "`python -m labkit reset` removes them" in said
    assert before == {path: path.stat().st_mtime_ns for path in (home / "server").rglob("*")}
    assert embedded.remove(home)
    assert not home.exists()


@posix_only
@pytest.mark.parametrize("sign", [*'$`"\\', pytest.param("\udcff", id="not UTF-8")])
def test_a_path_that_would_not_be_read_as_it_is_is_refused(
    tmp_path: Path, sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / f"a{sign}b"))
    with pytest.raises(LabError, match="Expected a path in UTF-8, without any of"):
        embedded.start()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ("x" * 300)))
    with pytest.raises(LabError, match=r"(?s)Expected that its files can be made there.*LABKIT_HO"):
        embedded.start()


def test_a_relative_home_means_the_same_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABKIT_HOME", "the lab")
    before = place()
    monkeypatch.chdir(tmp_path)
    assert before == place() == Path.home().resolve() / "the lab" / "postgresql"


@posix_only
@pytest.mark.parametrize("path", ["~nobody-of-this-name/lab", "loop/lab"])
def test_a_place_that_cannot_be_told_is_told(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setenv("LABKIT_HOME", path if path[0] == "~" else str(tmp_path / path))
    with pytest.raises(
        LabError, match=r"no place for labkit's files in .*/lab: |Not a directory|File exists"
    ):
        embedded.start()


@pytest.mark.parametrize(
    ("said", "todo"),
    [
        ("initdb: could not look up effective user ID 77: user does not exist", "in /etc/passwd"),
        ("createdb: error: local user with ID 77 does not exist", "run this as another user, or"),
        ("[Errno 20] Not a directory: '/etc/passwd/postgresql'", "Correct what prevents that, set"),
    ],
)
def test_room_is_asked_for_only_where_it_would_help(said: str, todo: str, tmp_path: Path) -> None:
    told = str(programs.failure(tmp_path, said))
    assert todo in told
    assert "100 MB" not in told


def test_root_without_a_user_nobody_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "IS_ROOT", True)
    monkeypatch.setattr(programs, "AS_OWNER", {})
    with pytest.raises(LabError, match="there is no user `nobody`"):
        programs.check(home)


def test_a_log_that_a_dying_server_has_open_is_let_be(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows refuses it: this stands in for Windows, on which it cannot be tried here."""
    unlink = Path.unlink

    def held(path: Path, missing_ok: bool = False) -> None:
        if path.name == "log-of-the-dying":
            raise PermissionError(13, "The process cannot access the file")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", held)
    monkeypatch.setattr(supervisor, "run", lambda home, *command: (0, ""))
    (home / "server" / "data").mkdir(parents=True)
    for name in "log", "log-of-the-dying":
        (home / "server" / name).touch()
    assert supervisor._start(home, embedded.SETTINGS)
    assert ["log-of-the-dying"] == [path.name for path in (home / "server").glob("log*")]


@pytest.mark.parametrize(
    ("why", "attempts"), [("Cannot assign requested address", 1), ("Address already in use", 3)]
)
def test_where_no_port_can_be_had_the_search_ends(
    home: Path, why: str, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "server" / "data").mkdir(parents=True)
    said = f'LOG:  could not bind IPv4 address "127.0.0.1": {why}\n'
    asked: list[str] = []

    def refuse(_: Path, *command: str) -> tuple[int, str]:
        asked.append(command[1])
        return 1, said

    monkeypatch.setattr(supervisor, "run", refuse)
    monkeypatch.setattr("time.monotonic", itertools.count(0, 25).__next__)
    with pytest.raises(LabError, match=r"(?s)could not bind.*listen on 127\.0\.0\.1") as error:
        supervisor._start(home, embedded.SETTINGS)
    assert asked == ["start"] * attempts + ["stop"]
    assert "labkit reset" not in str(error.value)


def test_a_server_that_cannot_be_reached_is_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    told = str(programs.failure(tmp_path, "createdb: error: Network is unreachable"))
    assert "Expected that programs may listen on 127.0.0.1, and reach it" in told
    assert "labkit reset" not in told


def test_an_old_copy_of_binaries_does_not_stay_behind(home: Path, kernel: Begin) -> None:
    (home / "binaries-0.6.0" / "bin").mkdir(parents=True)
    assert ask_server(kernel().start()) == 1
    assert list(home.glob("binaries-0.6.0")) == []


def test_nothing_is_said_when_python_ends(home: Path) -> None:
    code = "from labkit.server import embedded; embedded.start()"
    env = os.environ | {"LABKIT_HOME": str(home.parent)}
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=CHECKOUT, env=env, capture_output=True, text=True)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_a_record_names_this_machine(tmp_path: Path) -> None:
    write_record(tmp_path, server=7, port=8)
    found = json.loads((tmp_path / "running.json").read_text())
    assert (os.getpid(), 7, 8) == (found["supervisor"], found["server"], found["port"])
    assert here() == found["here"]
    assert socket.gethostname() == found["here"]["host"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "5",
        "null",
        '"x"',
        "{}",
        '{"here": 3}',
        '{"here": {}}',
        "\xff",
        '{"here": ["host"]}',
    ],
)
def test_a_damaged_record_counts_as_none(text: str, tmp_path: Path) -> None:
    write_record(tmp_path)
    (tmp_path / "running.json").write_text(text, "latin-1")
    assert serving(tmp_path) is None
    with alone(tmp_path) as stopped:
        assert stopped


def test_a_home_that_an_earlier_labkit_made_is_taken_over_as_it_is(
    home: Path, kernel: Begin
) -> None:
    first = kernel()
    url = first.start()
    pid_file = home / "server" / "data" / "postmaster.pid"
    left = pid_file.read_bytes()
    first.end()
    until(lambda: gone(home))
    made = (home / "server" / "data" / "PG_VERSION").stat().st_ino
    for name in "server.lock", "running.json":  # which it did not know
        (home / name).unlink()
    for name in "start.lock", "supervisor.lock":
        (home / name).touch()
    pid_file.write_bytes(left)  # its server was killed
    if as_root:
        shutil.chown(pid_file, "nobody")
    assert url == kernel().start()
    assert made == (home / "server" / "data" / "PG_VERSION").stat().st_ino
