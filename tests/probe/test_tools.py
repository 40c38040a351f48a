"""What is made of stalls: the summary, the log, and the command line that watches any program."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import Frame, LabError, Probe, Stall
from labkit.exercises import notebooks
from labkit.probe import ADVICE, Summary, attach, log
from labkit.probe.__main__ import main
from labkit.probe.histogram import Histogram
from labkit.probe.stall import Part
from labkit.probe.summary import Rows, count, sum_up
from tests.stalls import unless_busy

PROBE = [sys.executable, "-m", "labkit.probe"]


def stalls_of(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    """(cause, count) of STALL's line, in each summary; a busy machine may add other lines."""
    rows = [row for one in found for row in one["stalls"] if row["line"] == 5]
    return [(row["cause"], row["count"]) for row in rows]


def run(*arguments: object, status: int = 0) -> str:
    """What the command line prints on stderr, once it has ended with this status."""
    done = subprocess.run(
        [*PROBE, *map(str, arguments)], capture_output=True, text=True, timeout=60
    )
    assert status == done.returncode, done.stderr
    return done.stderr


def a_stall(line: int, cause: Any = "blocked", duration_ms: float = 100.0) -> Stall:
    frame = Frame("/srv/<app>.py", line, "handler")
    return Stall(0.0, duration_ms, cause, frame, (frame,), 9, False, 1, None)


# The summary.


def test_a_summary_is_text_html_and_plain_json() -> None:
    async def main() -> Probe:
        with Probe(threshold_ms=20) as probe:
            for _ in range(2):
                await asyncio.sleep(0.02)
                time.sleep(0.05)  # TWICE
            await asyncio.sleep(0.02)
        return probe

    summary = asyncio.run(main()).summary()
    lines = Path(__file__).read_text().splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.endswith("# TWICE"))
    found = json.loads(json.dumps(summary))
    [row] = [row for row in found["stalls"] if row["line"] == line]
    assert (2, "blocked", __file__) == (row["count"], row["cause"], row["file"])
    assert row["total_ms"] >= 100
    assert 0 < found["busy"] <= 1
    assert found["suggested_threshold_ms"] is None  # it was watched for too short a time
    assert f"test_tools.py:{line} in main: time.sleep(0.05)" in str(summary)
    assert "<table><tr><th>stalls" in summary._repr_html_()
    assert str(Summary(found)) == str(summary)  # another process can show it


def test_a_threshold_is_suggested_by_what_is_usual() -> None:
    lag, noise = Histogram(), Histogram()
    for _ in range(100):
        lag.add(0.003)
        noise.add(0.001)

    def suggested(seconds: float, beats: bool = False) -> Any:
        return sum_up(50, seconds, 0.1, beats, lag, noise, {})["suggested_threshold_ms"]

    assert suggested(30.0) == pytest.approx(30, 0.1)
    assert suggested(29.0) is None
    assert suggested(30.0, beats=True) is None


def test_a_summary_escapes_html_and_is_bounded() -> None:
    rows: Rows = {}
    for line in range(3000):
        count(rows, a_stall(line))
    found = list(rows.values())
    assert len(found) <= 1001
    assert 3000 == sum(row["count"] for row in found)
    shown = Summary(threshold_ms=50.0, stalls=found)
    assert "&lt;app&gt;" in shown._repr_html_()
    assert "various, at lines after the first 1,000" in str(shown)


def test_a_summary_of_a_moment_is_valid_json() -> None:
    async def main() -> Summary:
        with Probe() as probe:
            return probe.summary()

    text = json.dumps(asyncio.run(main()), allow_nan=False)
    assert json.loads(text)["lag_p50_ms"] is None


# The log.


def test_each_new_line_is_logged_at_once_and_a_known_one_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    clock = [0.0]
    monkeypatch.setattr(log, "perf_counter", lambda: clock[0])
    teller = log.Teller()
    monkeypatch.setattr(teller, "write", lambda level, text, error=None: said.append(text))
    for moment, line in [(0.0, 1), (1.0, 1), (2.0, 2), (59.0, 1), (61.0, 1)]:
        clock[0] = moment
        teller._over(a_stall(line))
        teller._say_how_many_more(leaving=False)
    assert 3 == len(said), said
    assert "<app>.py:1" in said[0]
    assert "what to do: python -m labkit.probe why" in said[0]
    assert "<app>.py:2" in said[1]
    assert "what to do" not in said[1]
    assert "+ 3 more, 0.3 s in all: blocked, at <app>.py:1 in handler" == said[2]


def test_a_handler_that_raises_ends_no_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    done = threading.Event()

    def write(level: int, text: str, error: object = None) -> None:
        if not said:
            said.append("")
            raise ZeroDivisionError("the handler's")
        said.append(text)
        done.set()

    teller, earlier = log.Teller(), {*threading.enumerate()}
    monkeypatch.setattr(teller, "write", write)
    teller.tell(a_stall(1))
    teller.tell(a_stall(2))
    assert done.wait(30)
    [thread] = {*threading.enumerate()} - earlier
    teller.close()
    thread.join(30)
    assert not thread.is_alive()
    assert "<app>.py:2" in said[1]
    assert "the handler's" in capsys.readouterr().err


def test_a_handler_that_hangs_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    going_on = threading.Event()
    teller = log.Teller()
    monkeypatch.setattr(teller, "write", lambda level, text, error=None: going_on.wait(60))
    for line in range(5000):
        teller.tell(a_stall(line))
    try:
        assert teller._queue.qsize() <= 1000
    finally:
        going_on.set()
        teller.close()


def test_a_probe_that_is_entered_again_has_a_log_that_waits_for_no_earlier_handler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_exit, going_on, done = dict[object, threading.Thread](), threading.Event(), threading.Event()
    monkeypatch.setattr("atexit.register", at_exit.__setitem__)
    # An earlier test's log can end now.
    monkeypatch.setattr("atexit.unregister", lambda finish: at_exit.pop(finish, None))
    first = log.Teller()
    monkeypatch.setattr(first, "write", lambda level, text, error=None: going_on.wait(60))
    first.tell(a_stall(1))
    second = first.close()
    monkeypatch.setattr(second, "write", lambda level, text, error=None: done.set())
    second.tell(a_stall(1))
    assert done.wait(30)
    threads = at_exit.copy()
    going_on.set()
    threads[first._finish].join(30)
    assert [second._finish] == [*at_exit]
    second.close()
    threads[second._finish].join(30)
    assert not at_exit


# Any program.

STALL = """
import asyncio, multiprocessing, os, sys, threading, time
async def main():
    await asyncio.sleep(0.05)
    time.sleep(0.2)
    await asyncio.sleep(0.05)
def work():
    asyncio.run(main())
"""  # line 5 holds the loop

IN_TWO_THREADS = """
for _ in range(2):
    threading.Thread(target=work).start()
# nobody waits for them: the interpreter does
"""

WITH_A_PROBE_OF_ITS_OWN = """
import labkit
async def watched():
    with labkit.Probe() as probe:
        await main()
    sys.exit(len(probe.stalls))
asyncio.run(watched())
"""

ONE_LOOP_AFTER_ANOTHER = """
for _ in range(3):
    work()
"""

FORKS_ON_THE_LOOPS_THREAD = """
async def fork():
    worker = multiprocessing.get_context("fork").Process(target=work)
    worker.start()
    while worker.is_alive():
        await asyncio.sleep(0.02)
asyncio.run(fork())
"""

FORKED_CHILD_EXITS = """
if os.fork() == 0:
    sys.exit(3)
os.wait()
work()
"""


@pytest.mark.parametrize(
    ("program", "status", "counts", "summaries"),
    [
        pytest.param("work()\nsys.exit(7)", 7, [1], 1, id="exits"),
        pytest.param("work()\nraise ValueError('mine')", 1, [1], 1, id="fails"),
        pytest.param(IN_TWO_THREADS, 0, [1, 1], 2, id="threads"),
        pytest.param(ONE_LOOP_AFTER_ANOTHER, 0, [3], 1, id="loops"),
        pytest.param(WITH_A_PROBE_OF_ITS_OWN, 1, [1], 1, id="own-probe"),
        pytest.param(FORKS_ON_THE_LOOPS_THREAD, 0, [1], 2, id="forks"),
        pytest.param(FORKED_CHILD_EXITS, 0, [1], 1, id="child-exits"),
    ],
)
def test_a_program_is_watched_without_an_edit_and_keeps_its_exit_status(
    program: str, status: int, counts: list[int], summaries: int, tmp_path: Path
) -> None:
    if "fork" in program and "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("there is no fork here")
    script, out = tmp_path / "service.py", tmp_path / "out.json"
    script.write_text(STALL + program)
    blocked = [("blocked", count) for count in counts]

    def once() -> tuple[str, list[dict[str, Any]]]:
        return run("--json", out, script, status=status), json.loads(out.read_text())

    said, found = unless_busy(once, lambda it: stalls_of(it[1]) == blocked)
    assert blocked == stalls_of(found), said
    assert all(0 < one["busy"] < 1 for one in found), said
    assert sum(one["seconds"] for one in found) > 0.3 * sum(counts)
    assert "service.py:5 in main: time.sleep(0.2)" in said
    assert summaries == said.count("threshold_ms 50,"), said  # a summary for each, told once
    assert said.rstrip().rpartition("\n")[2].startswith("threshold_ms"), said  # and told last


@pytest.mark.skipif(sys.platform == "win32", reason="there, terminate() ends a process at once")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_worker_is_watched_too_and_a_signal_prints_the_summary(
    how: str, number: str, tmp_path: Path
) -> None:
    if signal.getsignal(signal.Signals[number]) == signal.SIG_IGN:
        pytest.skip(f"{number} is ignored here, as under nohup, and so it is by what is started")
    script, out = tmp_path / "master.py", tmp_path / "out.json"
    script.write_text(
        f"{STALL}\n"
        "if __name__ == '__main__':\n"
        f"    worker = multiprocessing.get_context({how!r}).Process(target=work)\n"
        "    worker.start()\n"
        "    worker.join()\n"
        "    print('ready', flush=True)\n"
        "    for _ in range(600):\n"
        "        time.sleep(0.1)  # a signal that comes just before a sleep does not cut it short\n"
    )
    command = [*PROBE, "--json", str(out), str(script)]
    pipe = subprocess.PIPE

    def once() -> tuple[list[tuple[str, int]], str]:
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
            assert process.stdout is not None
            assert "ready" in process.stdout.readline()
            process.send_signal(signal.Signals[number])
            _, said = process.communicate(timeout=60)
        assert process.returncode == -signal.Signals[number], "as without the probe"
        return stalls_of(json.loads(out.read_text())), said

    # A probe that was kept from running all the while accuses nobody.
    stalls, said = unless_busy(once, lambda found: found[0] == [("blocked", 1)])
    assert [("blocked", 1)] == stalls, said
    assert "master.py:5 in main" in said


@pytest.mark.skipif(sys.platform == "win32", reason="there, terminate() ends a process at once")
def test_a_signal_ends_a_program_though_a_thread_of_its_goes_on(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        f"{STALL}\nwork()\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(0.1)\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([*PROBE, str(script)], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert 1 == said.count("threshold_ms 50,"), said


def test_what_outlives_the_script_finds_its_classes(tmp_path: Path) -> None:
    script, out = tmp_path / "service.py", tmp_path / "out"
    script.write_text(
        "import atexit, pickle, threading, time\nclass Mine: pass\n"
        f"def save():\n    open({str(out)!r}, 'ab').write(pickle.dumps(Mine())[:1])\n"
        "atexit.register(save)\n"
        "threading.Thread(target=lambda: time.sleep(0.3) or save()).start()\n"
    )
    said = run(script)
    assert "Traceback" not in said
    assert 2 == len(out.read_bytes()), said


def test_the_log_is_not_mixed_with_what_the_program_makes_of_stderr(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        f"{STALL}\nimport contextlib, io\n"
        "with contextlib.redirect_stderr(io.StringIO()) as mine:\n"
        "    work()\n    time.sleep(0.3)\nsys.exit(bool(mine.getvalue()))\n"
    )
    said = unless_busy(lambda: run(script), lambda it: "service.py:5 in main" in it)
    assert "service.py:5 in main" in said


def test_the_json_is_written_though_stderr_is_gone_and_a_folder_that_is_gone_is_told(
    tmp_path: Path,
) -> None:
    script, out = tmp_path / "service.py", tmp_path / "folder" / "out.json"
    out.parent.mkdir()
    script.write_text(f"{STALL}\nwork()\n")
    reads, writes = os.pipe()
    os.close(reads)
    subprocess.run([*PROBE, "--json", out, script], stderr=writes, check=True, timeout=60)
    os.close(writes)
    assert json.loads(out.read_text())
    script.write_text(f"import shutil\nshutil.rmtree({str(out.parent)!r})\n")
    said = run("--json", out, script)
    assert f"labkit.probe: {out} could not be written: No such file" in said
    assert "Traceback" not in said


CANNOT_RUN = [["package"], ["-m", "package"], ["-m", "package.nosuch"], ["broken.py"], ["fails.py"]]
CANNOT_RUN += [["stopped.py"], ["--", "-dash.py"]]


@pytest.mark.parametrize("arguments", CANNOT_RUN, ids=" ".join)
def test_what_cannot_run_is_told_as_python_tells_it(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "fails.py").write_text("def f(x: int): raise ValueError(f.__annotations__)\nf(1)\n")
    (tmp_path / "stopped.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    (tmp_path / "-dash.py").write_text("1 / 0\n")
    told, statuses = [], set()
    for python in [sys.executable], PROBE:
        command = [*python, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        statuses.add(done.returncode)
        told.append(done.stderr)
    nothing = "labkit.probe: no event loop was watched to its end, and no stall was seen.\n"
    assert told[0] + nothing == told[1]
    assert len(statuses - {0}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_signal_ends_a_forked_child_at_once_though_it_is_in_c_code(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        "import os, signal, sys, time\n"
        "if (child := os.fork()) == 0: sum(range(2 * 10**9))\n"
        "time.sleep(0.3)\nos.kill(child, signal.SIGTERM)\nstarted = time.monotonic()\n"
        "sys.exit(os.wait()[1] != signal.SIGTERM or time.monotonic() - started > 10)\n"
    )
    run(script)


def test_the_environments_own_sitecustomize_is_not_hidden(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('mine', flush=True)\n")
    program = "import sys; print([path for path in sys.path if 'boot' in path])"
    script = tmp_path / "parent.py"
    script.write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {program!r}])"
    )
    done = subprocess.run(
        [*PROBE, str(script)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ["mine", "mine", "[]"] == done.stdout.split(), done.stderr


def test_a_child_without_asyncio_pays_nothing(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    child = (
        "import sys\nbefore = {*sys.modules}\nimport asyncio\n"
        "print(*('labkit.probe' in names for names in (before, sys.modules)))"
    )
    script.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])")
    done = subprocess.run([*PROBE, str(script)], capture_output=True, text=True, timeout=60)
    assert "False True\n" == done.stdout, done.stderr


def test_the_end_of_a_loop_costs_the_same_after_many_threads(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        "import asyncio, threading\nfrom labkit import Probe\n"
        "made, summary = [], Probe.summary\n"
        "Probe.summary = lambda probe: made.append(probe) or summary(probe)\n"
        "def work(): asyncio.run(asyncio.sleep(0)); turn.wait()\n"
        "turn = threading.Barrier(9)\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "turn.wait()\n"
        "for thread in threads: thread.join()\n"
        "assert 8 <= len(made) < 50, len(made)\n"  # asyncio.run() runs its loop three times
    )
    run(script)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_who_runs_a_loop_of_uvloops_is_not_blamed_before_its_first_beat(tmp_path: Path) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        "import functools, json, uvloop\nrows = [{'number': n} for n in range(300_000)]\n"
        "loop = uvloop.new_event_loop()\n"
        "loop.call_soon(functools.partial(json.dumps, rows, indent=1))\n"
        "loop.call_later(0.2, loop.stop)\n"
        "loop.run_forever()\n"
    )
    said = unless_busy(lambda: run(script), lambda said: "encoder.py" in said)
    assert "encoder.py" in said or "in a line that no look found" in said  # as on Python 3.13
    assert "service.py" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["attach", "999999999"], "attach needs Python 3.14|There is no process 999999999"),
        (["nowhere.py"], "There is no 'nowhere.py'. Expected: -m MODULE, or the path of a script"),
        (["-m", "nowhere.service"], "There is no 'nowhere.service'. Expected: -m MODULE"),
        (["--threshold-ms", "0", __file__], "threshold_ms is 0.0; expected 1 or more"),
        (["--json", "nowhere/out.json", __file__], "nowhere/out.json|nowhere\\out.json"),
        ([], "the following arguments are required: program"),
    ],
)
def test_the_command_line_says_what_to_do(arguments: list[str], said: str) -> None:
    error = run(*arguments, status=2)
    assert any(part in error for part in said.split("|")), error
    assert "Traceback" not in error


def test_that_no_folder_can_be_made_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(**_: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "mkdtemp", none)
    monkeypatch.setattr(sys, "argv", ["labkit.probe", __file__])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = "labkit.probe: [Errno 2] No usable temporary directory found in ['/tmp']\n"
    assert said == capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "shown"), [("", 5), ("starved by another thread", 1), ("nonsense", 5)]
)
def test_each_cause_has_its_advice(asked: str, shown: int) -> None:
    command = [*PROBE, "why", *asked.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert shown == sum(f"{cause}:\n{advice}" in done.stdout for cause, advice in ADVICE.items())
    anchors = re.findall(r"notebooks/CHEATSHEET\.md#([\w-]+)\)", done.stdout)
    sheet = (notebooks() / "CHEATSHEET.md").read_text("utf-8")
    assert shown == sum(f'<a id="{anchor}"></a>' in sheet for anchor in anchors)


SERVES = """
import asyncio, json, sys, threading, time
from pathlib import Path
async def main(script=""):
    exec(script, {})
    for _ in range(20):
        await asyncio.sleep(0.02)
        time.sleep(0.1)
thread = threading.Thread(target=lambda: asyncio.run(main()))
thread.start()
answer = Path(sys.argv[1])
asyncio.run(main(sys.stdin.read()))
thread.join()
while not answer.read_text():
    time.sleep(0.05)
print(*[name for name in sys.modules if name.startswith("labkit")])
"""


def test_what_attach_sends_watches_every_loop_and_leaves_no_trace(tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    answer.touch()
    script = attach._SCRIPT.format(
        package=str(Path(attach.__file__).parents[1]),
        answer=str(answer),
        script=__file__,  # while it is there, the answer is wanted
        seconds=1.0,
        threshold_ms=50.0,
    )
    command = [sys.executable, "-c", SERVES, str(answer)]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
    assert "" == done.stdout.strip() + done.stderr
    found, why_not = json.loads(answer.read_text())
    assert (2, []) == (len(found), why_not)
    assert all("blocked" in {row["cause"] for row in one["stalls"]} for one in found), found


@contextlib.contextmanager
def loops(*coroutines: Callable[[], Coroutine[Any, Any, None]]) -> Iterator[None]:
    """Each runs on a loop of a thread of its own, until the end of the block."""
    threads = [threading.Thread(target=asyncio.run, args=(each(),)) for each in coroutines]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    yield
    for thread in threads:
        thread.join()


async def works() -> None:
    for _ in range(12):
        await asyncio.sleep(0.02)
        time.sleep(0.08)


async def ends_soon() -> None:
    await asyncio.sleep(0.3)


async def has_a_probe() -> None:
    with Probe():
        await asyncio.sleep(1)


async def is_held() -> None:
    await asyncio.sleep(0.05)
    time.sleep(1.8)


async def holds_on_and_on() -> None:
    for _ in range(4):
        time.sleep(0.5)
        await asyncio.sleep(0)


def test_a_loop_that_ends_or_is_watched_or_is_held_spoils_nothing_of_the_others() -> None:
    class Worker:
        __hash__ = None  # type: ignore[assignment]

        def run_forever(self) -> None:
            time.sleep(1)

    worker = threading.Thread(target=Worker().run_forever)
    worker.start()
    with loops(works, ends_soon, has_a_probe, is_held):
        found, why_not = attach.watch_loops(None, 1.0, 50.0)
    worker.join()
    ended, worked = sorted(found, key=lambda each: each["seconds"])
    assert ended["seconds"] < 0.9 < worked["seconds"]
    assert "blocked" in {row["cause"] for row in worked["stalls"]}
    assert 2 == len(why_not)
    assert any("is watched by a probe already" in reason for reason in why_not)
    assert any("held for all of" in reason and "py-spy" in reason for reason in why_not)


def test_a_loop_that_only_seldom_lets_anybody_in_is_watched_all_the_same() -> None:
    with loops(holds_on_and_on):
        [found], why_not = attach.watch_loops(None, 1.2, 50.0)
    assert ({"blocked"}, []) == ({row["cause"] for row in found["stalls"]}, why_not)


def test_attached_it_ends_once_nobody_waits_for_it_and_says_why_it_found_nothing() -> None:
    asked = iter([True, False])
    with loops(works):
        [found], _ = attach.watch_loops(None, 30.0, 50.0, lambda: next(asked))
    assert found["seconds"] < 1
    with loops(is_held), pytest.raises(LabError, match=r"^A loop was held for all of 0.1 s"):
        attach.watch_loops(None, 0.1, 50.0)


@pytest.mark.skipif(not hasattr(sys, "remote_exec"), reason="Python 3.14 and later have it")
def test_attach_watches_a_process_that_runs() -> None:
    serve = "async def serve():\n  print('ready', flush=True)\n  while True: await main()\n"
    command = [sys.executable, "-c", f"{STALL}{serve}asyncio.run(serve())"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready" in process.stdout.readline()
        try:
            [found], why_not = attach.attach(process.pid, 2.0, 50.0)
        finally:
            process.kill()
    assert (process.pid, []) == (found["pid"], why_not)
    assert [("blocked", 5)] == [(row["cause"], row["line"]) for row in found["stalls"]]


# Where there can be no probe.


def test_a_free_threaded_python_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def enter() -> None:
        with Probe():
            pass

    monkeypatch.setattr("sys._is_gil_enabled", lambda: False, raising=False)
    why = r"runs without its global interpreter lock\. .* PYTHON_GIL=1"
    with pytest.raises(LabError, match=why):
        asyncio.run(enter())
    with pytest.raises(LabError, match=why):
        attach.watch_loops(None, 1.0, 50.0)
    monkeypatch.setattr("sys.argv", ["labkit.probe", "-m", "this"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "PYTHON_GIL=1" in capsys.readouterr().err


def test_greenlets_in_place_of_threads_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def enter() -> None:
        with Probe():
            pass

    def start_new_thread() -> None: ...

    start_new_thread.__module__ = "gevent.thread"
    monkeypatch.setattr("_thread.start_new_thread", start_new_thread)
    with pytest.raises(LabError, match=r"^gevent or eventlet has made greenlets .* Expected"):
        asyncio.run(enter())


def test_a_program_whose_loops_cannot_be_watched_runs_all_the_same_and_is_told_once(
    tmp_path: Path,
) -> None:
    script = tmp_path / "patched.py"
    script.write_text(
        "import _thread, asyncio\n"
        "def start_new_thread(): ...\n"
        "start_new_thread.__module__ = 'gevent.thread'\n"
        "_thread.start_new_thread = start_new_thread\n"
        "for _ in range(3): asyncio.run(asyncio.sleep(0))\n"
        "print('ran')\n"
    )
    done = subprocess.run([*PROBE, script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("ran\n", 0)
    assert done.stderr.count("a loop is not watched: gevent or eventlet has made greenlets") == 1


IN_A_SUBINTERPRETER = """
import asyncio
from concurrent import interpreters
from labkit.probe import Probe
async def main():
    with Probe():
        pass
async def nothing(): pass
asyncio.run(nothing())
try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python 3.14 and later have it")
def test_a_subinterpreter_of_a_child_runs_its_loop_unwatched(tmp_path: Path) -> None:
    code = "from concurrent import interpreters\n"
    code += f"interpreters.create().exec({IN_A_SUBINTERPRETER!r})"
    program = tmp_path / "program.py"
    program.write_text(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}])")
    done = subprocess.run([*PROBE, program], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("LabError The probe's thread cannot be started"), done
    assert "Traceback" not in done.stderr


def test_what_a_slow_handler_makes_it_leave_out_is_said(caplog: pytest.LogCaptureFixture) -> None:
    goes_on, told = threading.Event(), list[Stall]()

    def on_stall(stall: Stall) -> None:
        goes_on.wait(30)
        told.append(stall)

    teller = log.Teller(on_stall)
    with caplog.at_level("INFO", "labkit.probe"):
        for _ in range(1500):
            teller.tell(a_stall(1))
        goes_on.set()
        teller.close()
        assert teller._left.wait(30)
        until = time.monotonic() + 10
        while not (more := re.findall(r"\+ (\d+) more", caplog.text)) and time.monotonic() < until:
            time.sleep(0.01)
    [left_out] = re.findall(r"(\d+) records were left out", caplog.text)
    assert 1500 == len(told) + int(left_out)
    assert [str(len(told) - 1)] == more


def test_no_count_is_lost_when_all_lines_are_new_again(caplog: pytest.LogCaptureFixture) -> None:
    teller = log.Teller()
    with caplog.at_level("INFO", "labkit.probe"):
        for line in (1, 1, *range(1, 1002)):
            teller._over(a_stall(line))
    assert [str(2)] == re.findall(r"\+ (\d+) more", caplog.text)


# Again, and from elsewhere.


def test_a_probe_that_is_entered_again_tells_again() -> None:
    async def stall(probe: Probe) -> None:
        with probe:
            await asyncio.sleep(0.02)
            time.sleep(0.05)
            await asyncio.sleep(0.02)

    def after_each_entry() -> list[tuple[int, int]]:
        told: list[Stall] = []
        probe, found = Probe(threshold_ms=20, on_stall=told.append), []
        for _ in range(3):
            asyncio.run(stall(probe))
            until = time.monotonic() + 10
            while len(told) < len(probe.stalls) and time.monotonic() < until:
                time.sleep(0.01)
            found.append((len(probe.stalls), len(told)))
        return found

    def good(found: list[tuple[int, int]]) -> bool:
        return all(n <= stalls == told for n, (stalls, told) in enumerate(found, 1))

    assert good(found := unless_busy(after_each_entry, good)), found


def test_a_loop_that_waits_is_not_busy_whoever_asks() -> None:
    async def main() -> float:
        with Probe() as probe:
            waits = asyncio.Event()
            asyncio.get_running_loop().call_later(1.0, waits.set)
            busy = asyncio.get_running_loop().create_future()

            def ask() -> None:  # while the loop waits, and has done nothing else
                time.sleep(0.5)
                found = probe.summary()["busy"]
                probe._timer.loop.call_soon_threadsafe(busy.set_result, found)

            threading.Thread(target=ask).start()
            await waits.wait()
            return float(await busy)

    assert asyncio.run(main()) < 0.5


def test_what_the_machine_took_is_on_no_lines_account() -> None:
    rows: Rows = {}
    machine = Part("the process was kept from running", 2_000.0, None)
    frame = Frame("app.py", 7, "work")
    count(
        rows, Stall(0.0, 2_150.0, "computing", frame, (frame,), 9, False, 1, None, also=(machine,))
    )
    [row] = rows.values()
    assert (150.0, 150.0) == (row["longest_ms"], row["total_ms"])


@pytest.mark.skipif(sys.platform == "win32", reason="there is no uvloop")
def test_a_package_that_imports_uvloop_at_once_is_watched(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("import uvloop\n")
    (tmp_path / "service" / "main.py").write_text(
        "import time, uvloop\nasync def main():\n    time.sleep(0.2)\nuvloop.run(main())\n"
    )
    done = subprocess.run(
        [*PROBE, "-m", "service.main"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "main.py:3 in main: time.sleep(0.2)" in done.stderr
