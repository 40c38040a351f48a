"""Kinds of stalls from public reports, and others: no innocent is accused, lines are the user's."""

import _thread
import asyncio
import bdb
import contextlib
import ctypes
import gc
import hashlib
import json
import logging
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import zlib
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import jinja2
import pytest

from labkit import Frame, Probe, Stall
from labkit.probe import histogram, users_frame
from labkit.probe.frames import is_library, source
from labkit.probe.looks import Sampler, _is_debuggers
from labkit.probe.meters import Measured, Meters
from labkit.probe.origin import Place
from labkit.probe.stall import OWN_THREADS
from labkit.probe.suspects import Suspect, Suspects, culprit
from labkit.probe.verdict import Iteration, judge
from tests.stalls import unless_busy

Main = Callable[[], Awaitable[object]]


def marked(mark: str) -> int:
    """The number of the line that ends with this mark."""
    lines = Path(__file__).read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.endswith(f"# {mark}"))


def longest(main: Main, threshold_ms: float = 20) -> Stall | None:
    """The longest stall while `main` runs as a task of its own; None if there was none."""

    async def watched() -> list[Stall]:
        with Probe(threshold_ms) as probe:
            await asyncio.sleep(0.05)
            await asyncio.ensure_future(main())
            await asyncio.sleep(0.05)
        return probe.stalls

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        stalls = runner.run(watched())
    return max(stalls, key=lambda stall: stall.duration_ms, default=None)


def verdict(main: Main, threshold_ms: float = 20) -> tuple[str, int]:
    """Cause and line of the longest stall, unless the machine hides it three times."""
    for _ in range(3):
        stall = longest(main, threshold_ms)
        line = stall.awaited_at or stall.frame if stall is not None else None
        if stall is not None and line is not None:  # else no look found it, or nothing is proved
            return stall.cause, line.line
    pytest.skip("three times, this machine was too busy for a verdict")


@contextlib.contextmanager
def thread(work: Callable[[], object]) -> Iterator[None]:
    """A thread that works all the time."""
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            work()

    worker = threading.Thread(target=repeat, name="worker")
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def hash_it() -> None:
    hashlib.pbkdf2_hmac("sha256", b"pw", b"salt", 300_000)


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until: pass  # fmt: skip # noqa: E701 # SPIN


# Nobody is accused who let go of the interpreter.


@pytest.mark.parametrize("work", [hash_it, lambda: zlib.compress(os.urandom(200_000), 9)])
def test_a_loop_that_waits_beside_threads_that_let_go_is_blocked(work: Callable[[], Any]) -> None:
    async def main() -> None:
        for _ in range(3):
            time.sleep(0.04)  # WAIT

    with thread(work):
        assert verdict(main) == ("blocked", marked("WAIT"))


def test_a_loop_that_computes_beside_threads_that_let_go_computes() -> None:
    async def main() -> None:
        spin(0.15)

    with thread(hash_it):
        assert verdict(main) == ("computing", marked("SPIN"))


def test_a_loop_that_waits_beside_a_python_thread_is_blocked() -> None:
    async def main() -> None:
        time.sleep(0.15)  # ASLEEP

    with thread(lambda: sum(range(1000))):
        assert verdict(main) == ("blocked", marked("ASLEEP"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, nobody tells in which call it is")
def test_a_call_that_each_packet_wakes_up_is_blocked_beside_a_python_thread() -> None:
    here, there = socket.socketpair()
    program = (
        f"import socket, time\nthere = socket.socket(fileno={there.fileno()})\n"
        "while there.recv(1):\n    for _ in range(80): time.sleep(0.001); there.send(b'1')"
    )

    async def main() -> None:
        here.send(b"1")
        here.recv(80, socket.MSG_WAITALL)  # PACKETS

    with (
        subprocess.Popen([sys.executable, "-c", program], pass_fds=[there.fileno()]),
        here,
        there,
        thread(lambda: sum(range(100))),
    ):
        here.send(b"1")
        here.recv(80, socket.MSG_WAITALL)  # it has begun
        assert verdict(main) == ("blocked", marked("PACKETS"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, nobody tells in which call it is")
def test_a_wait_for_a_lock_and_one_for_the_interpreter_are_told_apart() -> None:
    lock, over = threading.Lock(), threading.Event()

    def wants_the_interpreter() -> None:
        while not over.is_set():
            time.sleep(0)

    interval = sys.getswitchinterval()
    with lock:
        waiting = [
            threading.Thread(target=wait)
            for wait in (lambda: lock.acquire(), wants_the_interpreter)
        ]
        for each in waiting:
            each.start()
        meters = [Meters(each.native_id or 0) for each in waiting]
        spin(0.1)
        sys.setswitchinterval(60)  # this thread keeps it
        try:
            spin(0.05)
            assert ["other", "interpreter"] == [each._loop_waits(0.0) for each in meters]
        finally:
            sys.setswitchinterval(interval)
            over.set()
    for meter, each in zip(meters, waiting, strict=True):
        meter.close()
        each.join()


def test_the_larger_part_is_the_cause_and_the_other_is_told() -> None:
    async def main() -> None:
        time.sleep(0.1)
        spin(0.2)

    def attempt() -> tuple[str, bool]:
        stall = longest(main)
        assert stall is not None
        return stall.cause, "blocked" in {part.cause for part in stall.also}

    computing = ("computing", True)  # unless a good part of its time went to the machine
    assert computing == unless_busy(attempt, lambda found: found == computing)


def test_native_code_that_sleeps_with_the_interpreter_is_named_by_its_caller() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("its C library is called by name")

    async def main() -> None:
        ctypes.PyDLL(None).usleep(150_000)  # NATIVE

    assert verdict(main) == ("blocked", marked("NATIVE"))


@pytest.mark.parametrize("loop_runs", [1, 20])  # the loop slept; it asked for the interpreter
def test_beside_a_thread_that_computes_such_a_sleep_is_not_taken_for_the_machines(
    loop_runs: int,
) -> None:
    stall = judged(looked(0.09, 0.03, idle=0.06, loop_runs=loop_runs), HOG)
    assert isinstance(stall, Stall)
    rest = "blocked" if loop_runs == 1 else "starved by another thread"
    assert ("unknown", [rest]) == (stall.cause, [part.cause for part in stall.also])


def test_such_a_sleep_is_not_charged_to_a_thread_that_kept_the_interpreter_at_another_time() -> (
    None
):
    seen = Iteration(0.0, place=HANDLER)
    for until, m, cpu in [
        (0.06, looked(0.0, 0.0), 0.06),
        (0.105, looked(0.04, 0.04), 0.0),
        (0.145, looked(0.04, 0.0, idle=0.1, loop_runs=1), 0.0),
    ]:
        seen.add(until, m, cpu, HOG)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    assert "computing" == stall.cause


def test_beside_a_thread_that_sleeps_with_the_interpreter_none_that_computes_is_accused() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("its C library is called by name")

    def hash_long() -> None:  # it runs longer than the other one sleeps
        hashlib.pbkdf2_hmac("sha256", b"pw", b"salt", 2_000_000)

    async def main() -> None:
        sleeper = asyncio.ensure_future(asyncio.to_thread(ctypes.PyDLL(None).usleep, 150_000))
        while not sleeper.done():
            await asyncio.sleep(0.001)

    with thread(hash_long):
        stall = longest(main)
    assert stall is not None
    assert ("unknown", None) == (stall.cause, stall.thread)


def test_the_line_after_an_operation_that_is_no_call_is_not_said_to_have_done_it() -> None:
    def entered(power: int) -> int:
        return power

    async def main() -> None:
        base = 3
        entered(base**1_500_000)  # POWER

    stall = unless_busy(lambda: longest(main), lambda s: s is not None and s.cause == "computing")
    assert stall is not None
    assert (stall.frame, stall.approximate) == (Frame(__file__, marked("POWER"), "main"), True)
    assert "computing, at or shortly before test_kinds.py" in str(stall)


def test_a_signals_handler_that_waits_is_blamed_though_the_loop_was_idle() -> None:
    if sys.platform == "win32":
        pytest.skip("no SIGUSR1")

    def reload(*_: object) -> None:
        time.sleep(0.2)  # RELOAD

    async def main() -> None:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        for _ in range(20):
            await asyncio.sleep(0.01)

    before = signal.signal(signal.SIGUSR1, reload)
    try:
        assert verdict(main) == ("blocked", marked("RELOAD"))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_a_collection_calls_is_not_the_collectors_fault() -> None:
    class Connection:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            time.sleep(0.1)  # CLOSE

    async def main() -> None:
        Connection()
        gc.collect(0)

    assert verdict(main) == ("blocked", marked("CLOSE"))


def test_what_a_collection_in_a_thread_calls_is_not_the_collectors_fault() -> None:
    class Connection:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            sum(range(5_000_000))  # IN A THREAD

    def collect() -> None:
        Connection()
        gc.collect(0)

    async def main() -> None:
        collecting = asyncio.ensure_future(asyncio.to_thread(collect))
        while not collecting.done():
            await asyncio.sleep(0.005)

    assert verdict(main) == ("starved by another thread", marked("IN A THREAD"))


# While an error is on its way through a coroutine, Python 3.11 tells of an object that there is not
# when it is asked what the coroutine awaits.
WHILE_AN_ERROR_COMES_THROUGH = """
import asyncio
from labkit.probe.origin import _awaiting_line

class Wait:
    def __await__(self):
        return self
    def __next__(self):
        return None
    def __del__(self):
        print(_awaiting_line(task).line)

async def main():
    global task
    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])

async def wait():
    await Wait()

asyncio.run(main())
"""


def test_a_coroutine_that_an_error_comes_through_is_looked_at_without_a_crash(
    tmp_path: Path,
) -> None:
    script = tmp_path / "service.py"
    script.write_text(WHILE_AN_ERROR_COMES_THROUGH)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert (0, "21\n") == (done.returncode, done.stdout), done.stderr


@pytest.mark.parametrize("cause", ["blocked", "computing"])
def test_what_a_librarys_finalizer_does_is_not_the_line_that_made_garbage(cause: str) -> None:
    text = {"blocked": "sleep(0.1)", "computing": "while clock() < at + 0.1: pass"}[cause]
    space: dict[str, Any] = {"sleep": time.sleep, "clock": time.perf_counter}
    close = f"def close(it):\n at = clock()\n {text}"
    exec(compile(close, json.__file__, "exec"), space)
    made: Any = type("Connection", (), {"__del__": space["close"]})

    async def main() -> None:
        connection, rows = made(), list[Any]()
        connection.me = connection
        del connection
        for i in range(3000):
            rows.append([i])

    stall = unless_busy(lambda: longest(main), lambda it: bool(it and it.cause == cause))
    assert stall
    assert stall.frame
    assert (json.__file__, 3, "close") == stall.frame


# A look finds where the loop lets go of the interpreter. Before that, it may have been elsewhere.


@pytest.mark.parametrize("rows", [30, 150])
def test_a_line_that_only_lets_go_is_not_surely_the_one_that_computed(rows: int) -> None:
    def price() -> int:
        return sum(i * i % 7 for i in range(20_000))

    async def main() -> None:
        with open(os.devnull, "wb", buffering=0) as log:
            for _ in range(rows):
                price()
                log.write(b"priced")  # WRITE

    for _ in range(3):
        stall = longest(main, 10)
        if stall and stall.frame and stall.frame.line == marked("WRITE"):
            assert stall.at != "at", stall


async def operator_in_c() -> None:
    known, hits = [*range(30_000)], list[bool]()
    for key in range(-200, 0):
        hit = key in known
        hits.append(hit)  # AFTER


async def iterator_in_c() -> None:
    sums = list[int]()
    for total in map(sum, repeat([*range(100_000)], 200)):
        sums.append(total)  # AFTER, TOO


async def helper_in_c() -> None:
    known, hits = [*range(30_000)], list[bool]()

    def is_known(key: int) -> bool:
        return key in known

    for key in range(-200, 0):
        hit = is_known(key)
        hits.append(hit)  # AFTER A HELPER


@pytest.mark.parametrize(
    ("main", "mark"),
    [
        (operator_in_c, "AFTER"),
        (iterator_in_c, "AFTER, TOO"),
        (helper_in_c, "AFTER A HELPER"),
    ],
)
def test_what_computes_in_c_without_a_call_may_be_on_the_line_before(main: Main, mark: str) -> None:
    stall = unless_busy(lambda: longest(main), lambda it: bool(it and it.frame))
    assert stall
    assert stall.frame
    assert stall.at != "at" or stall.frame.line != marked(mark), stall


def test_a_jump_to_where_its_loop_begins_is_in_the_loop_also_if_it_has_no_line() -> None:
    async def main() -> None:
        most = 0
        for n in range(1_000_000):  # ANEW
            if n % 7 > most:
                most = n % 7

    cause, line = verdict(main)
    assert cause == "computing"
    assert 0 <= line - marked("ANEW") < 3, line


def test_a_thread_that_is_none_of_threadings_leaves_the_others_innocent() -> None:
    over = threading.Event()

    def keep() -> None:
        while not over.is_set():
            sum(range(1000))

    def release() -> None:
        hashlib.sha256(data)
        zlib.crc32(data)
        zlib.compress(data[:300_000], 6)

    async def main() -> None:
        for _ in range(100):
            await asyncio.sleep(0.003)

    data = os.urandom(2_000_000)
    _thread.start_new_thread(keep, ())
    try:
        with thread(release):
            found = [longest(main, 10) for _ in range(3)]
    finally:
        over.set()
    assert "worker" not in {stall.thread for stall in found if stall is not None}


def test_the_time_in_which_the_process_is_stopped_is_nobodys() -> None:
    if sys.platform == "win32":
        pytest.skip("no SIGSTOP")
    pid = os.getpid()
    stop = f"sleep .1; kill -STOP {pid}; sleep .4; kill -CONT {pid}"

    async def main() -> None:
        with subprocess.Popen(["sh", "-c", stop]) as process:
            while process.poll() is None:
                sum(range(20_000))
                await asyncio.sleep(0)

    stall = longest(main, 100)
    assert stall is None or stall.cause == "unknown", str(stall)


def test_a_loop_that_does_not_run_is_not_stalled() -> None:
    loop = asyncio.SelectorEventLoop()
    probe = Probe(threshold_ms=50)

    async def enter() -> None:
        probe.__enter__()

    async def leave() -> None:
        probe.__exit__(None, None, None)

    loop.run_until_complete(enter())
    time.sleep(0.3)
    loop.run_until_complete(leave())
    loop.close()
    assert [stall for stall in probe.stalls if stall.duration_ms > 200] == []


# The user's own line, where none is on the stack.


async def framework() -> None:
    time.sleep(0.1)


framework.__code__ = framework.__code__.replace(co_filename=json.__file__)  # as a library's


def test_a_greenlet_does_not_hide_the_line_that_entered_it() -> None:
    greenlet = pytest.importorskip("greenlet")

    def library() -> None:
        time.sleep(0.1)

    library.__code__ = library.__code__.replace(co_filename=json.__file__)

    async def main() -> None:
        await asyncio.sleep(0.01)  # the probe knows by now in which greenlet the loop runs
        greenlet.greenlet(library).switch()  # ENTER

    assert verdict(main) == ("blocked", marked("ENTER"))


def test_a_frameworks_task_is_told_by_its_name_and_by_who_awaits_it() -> None:
    async def main() -> None:
        await asyncio.gather(asyncio.create_task(framework(), name="GET /orders"))  # GATHER

    stall = longest(main)
    assert stall is not None
    assert stall.task == "GET /orders"
    assert stall.awaited_at == Frame(__file__, marked("GATHER"), "main")
    assert "in task 'GET /orders', awaited at test_kinds.py" in str(stall)


def test_a_line_that_only_awaits_a_library_is_said_to_await_it() -> None:
    async def main() -> None:
        await framework()  # MIDDLEWARE

    stall = longest(main)
    assert stall is not None
    assert (stall.frame or (None,))[0] == json.__file__
    assert stall.awaited_at == Frame(__file__, marked("MIDDLEWARE"), "main")
    assert ("awaited at", stall.line) == (stall.at, stall.awaited_at)


def test_whom_a_done_callback_only_ends_is_not_said_to_await_the_task() -> None:
    async def watchdog() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        dog = asyncio.create_task(watchdog())
        for callback in (lambda _: dog.cancel(), dog.cancel):
            task = asyncio.create_task(framework())
            task.add_done_callback(callback)
            await asyncio.sleep(0.15)

    stall = longest(main)
    assert stall is not None
    assert stall.awaited_at is None


def test_of_a_template_the_line_that_renders_it_is_named(tmp_path: Path) -> None:
    """Its functions say a line of the Python that was made of it, beside the template's name."""
    (tmp_path / "orders.html").write_text(
        "<p>\n{% for i in range(1) %}{{ sleep(0.1) }}{% endfor %}"
    )
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(tmp_path), autoescape=True)
    template = templates.get_template("orders.html")

    async def main() -> None:
        template.render(sleep=time.sleep)  # RENDER

    stall = longest(main)
    assert stall is not None
    assert stall.frame == Frame(__file__, marked("RENDER"), "main")


def test_a_callback_in_c_has_no_line() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(0.02, time.sleep, 0.1)
        await asyncio.sleep(0.05)

    stall = longest(main)
    assert stall is not None
    assert "blocked, where there was no Python frame (C code, the loop itself or" in str(stall)


def test_the_line_that_runs_a_loop_in_a_thread_is_never_a_culprit() -> None:
    def serve(loop: Any) -> None:
        loop.run_forever()  # SERVE

    serves = Frame(__file__, marked("SERVE"), "serve")
    assert Place((serves,), None, "second").frame is None
    called = Frame(__file__, marked("RELOAD"), "reload")
    assert called == Place((serves, called), None, "second").frame


def test_a_task_group_that_awaits_a_librarys_task_is_found() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:  # GROUP
            group.create_task(framework())
            await asyncio.sleep(0.2)  # or here, where its parent waits

    stall = longest(main)
    assert stall is not None
    assert stall.awaited_at is not None
    assert marked("GROUP") <= stall.awaited_at.line <= marked("GROUP") + 2


def test_who_sent_a_thread_the_call_that_keeps_the_interpreter_is_named() -> None:
    text = json.dumps(list(range(2_000_000)))

    async def load() -> object:
        return await asyncio.get_running_loop().run_in_executor(None, json.loads, text)  # SEND

    expected = "starved by another thread", marked("SEND")
    assert expected == unless_busy(lambda: verdict(load), lambda found: found == expected)


def test_who_sent_a_process_what_a_thread_pickles_for_it_is_named() -> None:
    numbers = list(range(2_000_000))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(len, "").result()  # the process is there

        async def count() -> None:
            await asyncio.get_running_loop().run_in_executor(pool, len, numbers)  # PICKLED

        async def main() -> None:
            counting = asyncio.ensure_future(count())
            while not counting.done():
                await asyncio.sleep(0.001)

        assert verdict(main) == ("starved by another thread", marked("PICKLED"))


# What is not proved is not said.


def looked(late: float, kept: float, **more: Any) -> Measured:
    fields = {"at": 0.0, "stopped": 0.0, "others": 0.1, "loop_cpu": 0.0, "loop_runs": 20}
    return Measured(took=0.1, late=late, kept=kept, **{**fields, **more})


HANDLER = Place((Frame("/srv/app.py", 3, "handler"),))


def judged(m: Measured, who: Place | None, cpu: float = 0.0) -> Stall | float:
    seen = Iteration(0.0, place=HANDLER, cpu=cpu)
    seen.add(0.1, m, 0.0, who)
    return judge(seen, 0.05, 0.0)


def test_a_wait_for_a_processor_that_is_counted_when_it_is_over_is_the_machines() -> None:
    seen = Iteration(0.0, place=HANDLER)
    for until, queued in (0.1, 0.0), (0.3, 0.22):
        seen.add(until, looked(0.0, 0.0, loop_queued=queued), 0.0, None)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    [machine] = stall.also
    assert stall.cause == "blocked"
    assert pytest.approx(220) == machine.ms


HOG = Place((Frame("/srv/hog.py", 7, "hog"),), None, "hog")


@pytest.mark.parametrize(
    ("m", "who", "expected"),
    [
        (looked(0.09, 0.09), HOG, "starved by another thread"),
        (looked(0.09, 0.09), None, "unknown"),
        (looked(0.09, 0.09, loop_runs=0), HOG, "blocked"),  # it slept, and asked for nothing
        (looked(0.0, 0.0), HOG, "blocked"),
        (looked(0.0, 0.0, loop_waits="interpreter"), HOG, "unknown"),  # who had it?
        (looked(0.005, 0.005, loop_waits="other"), HOG, "blocked"),
        (looked(0.09, 0.09, loop_waits="other"), HOG, "unknown"),  # and before this glance?
        (looked(0.09, 0.09, elsewhere=0.09), HOG, "collecting garbage"),
        (looked(0.09, 0.05, elsewhere=0.04), HOG, "collecting garbage"),  # on a busy processor
        (looked(0.09, 0.09, elsewhere=0.09, finalizes=True), HOG, "starved by another thread"),
        (looked(0.0, 0.0, loop_runs=None), None, "blocked"),
        (looked(0.09, 0.09, loop_runs=None), HOG, "unknown"),  # as on macOS and Windows
    ],
)
def test_a_thread_is_accused_only_if_it_is_proved(
    m: Measured, who: Place | None, expected: str
) -> None:
    stall = judged(m, who)
    assert isinstance(stall, Stall)
    assert (expected, "hog" if who and expected not in ("blocked", "unknown") else None) == (
        stall.cause,
        stall.thread,
    )


def test_where_no_system_counts_wake_ups_the_loops_place_tells_that_it_was_starved() -> None:
    seen = Iteration(0.0, place=HANDLER, asks=True)
    seen.add(0.1, looked(0.09, 0.09, loop_runs=None), 0.0, HOG)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    assert ("starved by another thread", "hog") == (stall.cause, stall.thread)


@pytest.mark.parametrize(
    ("reading", "machines"),
    [({"stopped": 0.09}, 0.09), ({"loop_queued": 0.09}, 0.09)],
)
def test_what_the_machine_kept_from_running_is_no_stall(
    reading: dict[str, float], machines: float
) -> None:
    assert pytest.approx(machines) == judged(looked(0.09, 0.0, **reading), None)


@pytest.mark.parametrize(("threshold", "cause"), [(0.03, "computing"), (0.05, "unknown")])
def test_what_is_a_stall_by_itself_is_its_cause_however_crowded_it_was(
    threshold: float, cause: str
) -> None:
    crowd = 0.1 * (os.cpu_count() or 1)
    seen = Iteration(0.0, place=HANDLER)
    seen.add(0.1, looked(0.0, 0.0, loop_queued=0.06, others=crowd), 0.04, None)
    stall = judge(seen, threshold, 0.0)
    assert isinstance(stall, Stall)
    assert cause == stall.cause


def test_a_wait_for_processors_that_its_own_threads_had_is_not_the_machines() -> None:
    crowd = 0.1 * (os.cpu_count() or 1)
    stall = judged(looked(0.0, 0.0, loop_queued=0.09, others=crowd), None)
    assert isinstance(stall, Stall)
    assert ("unknown", None) == (stall.cause, stall.frame)
    assert [(OWN_THREADS, 90)] == [(part.cause, round(part.ms)) for part in stall.also]
    assert pytest.approx(100) == stall.own_ms


@pytest.mark.parametrize(("crowd", "expected"), [(0.0, "blocked"), (0.1, "unknown")])
def test_a_loop_without_a_python_frame_may_only_wait_its_turn(crowd: float, expected: str) -> None:
    seen = Iteration(0.0, place=Place())  # as uvloop, between two callbacks
    seen.add(0.1, looked(0.0, 0.0, others=crowd * (os.cpu_count() or 1)), 0.0, None)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    assert expected == stall.cause


@pytest.mark.parametrize(
    ("at", "expected"),
    [(0.15, "starved by another thread"), (0.21, "unknown")],  # did it ask in it, or after it?
)
def test_who_asked_after_the_end_of_a_stall_proves_nothing(at: float, expected: str) -> None:
    seen = Iteration(0.0, place=HANDLER, end=0.15, busy=0.15)
    seen.add(0.04, looked(0.0, 0.0, loop_runs=0, loop_waits="other"), 0.0, None)
    m = looked(at - 0.05, at - 0.05, at=at, others=at, loop_runs=24)
    seen.add(0.15, replace(m, took=at - 0.04), 0.0, HOG)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    assert expected == stall.cause


def test_what_was_asleep_is_so_until_it_asks() -> None:
    seen = Iteration(0.0, place=HANDLER, end=0.09, busy=0.09)
    seen.add(0.03, looked(0.0, 0.0, loop_runs=0), 0.0, None)
    seen.add(0.09, looked(0.06, 0.06, loop_runs=6, elsewhere=0.06), 0.0, None)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    assert ("blocked", 60) == (stall.cause, round(stall.share * stall.own_ms))
    assert [("collecting garbage", 30)] == [(part.cause, round(part.ms)) for part in stall.also]


def test_a_loop_that_sleeps_is_starved_by_no_other_loop_of_the_process() -> None:
    found: list[Stall] = []

    async def main(computes: bool) -> None:
        with Probe() as probe:
            for _ in range(3):
                (spin if computes else time.sleep)(0.15)
                await asyncio.sleep(0.02)
        found.extend(probe.stalls if not computes else [])

    for _ in range(4):
        loops = [
            threading.Thread(target=lambda it: asyncio.run(main(it)), args=(computes,))
            for computes in (False, True) * 2
        ]
        for loop in loops:
            loop.start()
        for loop in loops:
            loop.join()
    slept = [stall for stall in found if 149 < stall.duration_ms < 250]
    assert len(slept) > 12
    assert {stall.cause for stall in slept} <= {"blocked", "unknown"}, slept


def test_a_look_after_the_end_adds_nothing_to_a_stall() -> None:
    seen = Iteration(0.0, place=HANDLER, end=0.06, busy=0.06)
    seen.add(0.02, looked(0.0, 0.0), 0.02, None)
    seen.add(0.13, looked(0.0, 0.0), 0.02, None)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    assert (60, "blocked") == (round(stall.own_ms), stall.cause)
    assert stall.share <= 1
    assert sum(part.ms for part in stall.also) < 60


def test_a_collection_is_timed_on_whichever_thread_it_is() -> None:
    async def main() -> tuple[float, float]:
        with Probe() as probe:
            await asyncio.to_thread(gc.collect)
            here, _ = probe._timer.garbage
            gc.collect()
            return probe._timer.garbage[1], probe._timer.garbage[0] - here

    gc.disable()
    try:
        elsewhere, here = asyncio.run(main())
    finally:
        gc.enable()
    assert min(elsewhere, here) > 0


def test_what_others_take_before_the_collector_has_told_of_it_is_no_garbage() -> None:
    async def main() -> float:
        with Probe() as probe:
            probe._timer.on_gc("start", {})
            time.sleep(0.05)  # here, another thread has the interpreter
            going_on = max(probe._timer.garbage)
            probe._timer.on_gc("stop", {})
            return max(going_on, *probe._timer.garbage)

    assert asyncio.run(main()) < 0.02


def test_a_line_that_waits_and_is_seen_again_where_it_computes_is_told_as_approximate() -> None:
    seen = Iteration(0.0, place=HANDLER)
    for i in range(1, 11):  # it computes between two waits, too shortly for a look
        seen.add(i / 100, looked(0.0, 0.0), 0.007, None)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    assert ("computing", "at or shortly before") == (stall.cause, stall.at)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([(3, 0.03), (7, 0.031)], "at or shortly before app.py:7"),  # two calls into C
        ([(3, 0.03), *[(7, 0.005)] * 8], "at app.py:7"),
        ([(3, 0.005), *[(7, 0.005)] * 2, (7, 0.03)], "at or shortly before app.py:7"),
    ],
)
def test_a_look_that_stands_for_most_of_its_lines_time_came_late(
    looks: list[tuple[int, float]], expected: str
) -> None:
    seen = Iteration(0.0)
    for line, took in looks:
        seen.place = Place((Frame("/srv/app.py", line, "handler"),))
        seen.add(seen.divided + took, looked(0.005, 0.0), took, None)
    assert f"computing, {expected}" in str(judge(seen, 0.05, 0.0))


@pytest.mark.parametrize(
    ("kept", "expected"), [(0.0055, "at app.py:7"), (0.008, "at or shortly before app.py:7")]
)
def test_a_look_that_waited_for_an_operation_in_c_can_see_the_line_after_it(
    kept: float, expected: str
) -> None:
    seen = Iteration(0.0, place=Place((Frame("/srv/app.py", 7, "handler"),)))
    for _ in range(8):
        seen.add(seen.divided + 0.01, looked(kept, kept), 0.01, None)
    assert f"computing, {expected}" in str(judge(seen, 0.05, 0.0))


@pytest.mark.parametrize(("first", "expected"), [(0.026, "at"), (0.034, "at or shortly before")])
def test_a_first_look_that_came_late_does_not_know_what_was_before(
    first: float, expected: str
) -> None:
    seen = Iteration(0.0, place=HANDLER)
    for took in (first, *[0.005] * 6):
        seen.add(seen.divided + took, looked(0.0, 0.0), 0.0, None)
    stall = judge(seen, 0.05, 0.0)
    assert isinstance(stall, Stall)
    assert ("blocked", expected) == (stall.cause, stall.at)


def test_a_look_that_came_late_is_late_for_the_thread_that_kept_the_interpreter() -> None:
    assert "starved by another thread (hog), at or shortly before hog.py:7" in str(
        judged(looked(0.09, 0.09), HOG)
    )


def test_what_many_tasks_did_is_no_single_tasks_work() -> None:
    def told(*tasks: str) -> str:
        seen = Iteration(0.0)
        for task in tasks:
            seen.place = HANDLER._replace(task=task)
            seen.tasks[seen.place.where].add(hash(task))
            seen.add(seen.divided + 0.01, looked(0.0, 0.0), 0.0, None)
        return str(judge(seen, 0.05, 0.0))

    assert "blocked, in 5 tasks or more, at app.py" in told("a", "b", "c", "d", "e")
    assert "in task 'a'" in told("a", "a", "a", "a", "b")


def test_a_part_that_one_look_stands_for_may_be_another_lines() -> None:
    seen = Iteration(0.0, place=HANDLER)
    seen.add(0.03, looked(0.0, 0.0), 0.0, None)  # it waited; where, nobody saw
    for _ in range(10):
        seen.add(seen.divided + 0.005, looked(0.0, 0.0), 0.005, None)
    assert "; blocked for 30 ms, at or shortly before app.py" in str(judge(seen, 0.05, 0.0))


def test_of_a_crowd_of_lines_one_is_an_example() -> None:
    seen = Iteration(0.0)
    for i in range(1, 11):
        seen.place, seen.looks = Place((Frame("/srv/app.py", i, f"job_{i}"),)), i
        seen.tasks[seen.place.where].add(i)
        seen.add(i / 100, looked(0.005, 0.0), 0.01, None)
    assert "computing, e.g. at app.py" in str(judge(seen, 0.05, 0.0))


@pytest.mark.parametrize(
    ("file", "works_for", "sent"),
    [
        ("/srv/app.py", "_worker", False),
        (threading.__file__, "_worker", True),
        (threading.__file__, "run", False),  # it is no thread of a pool
    ],
)
def test_work_is_being_sent_only_where_the_library_sends_it(
    file: str, works_for: str, sent: bool
) -> None:
    seen = Iteration(0.0, place=Place((*HANDLER.stack, Frame(file, 7, "submit"))))
    stack = (Frame(threading.__file__, 1, works_for), Frame(json.__file__, 3, "loads"))
    exporter = Place(stack, None, "exporter")
    sampler = Sampler(Probe(10))
    sampler._warn_at = 1.0
    sampler._divide(seen, looked(0.09, 0.09, at=0.1), exporter)
    assert sent == any(place.thread and place.awaited_at for _, place in seen.shares)


def test_of_threads_that_ran_only_the_one_that_alone_can_have_been_it_is_named() -> None:
    hashes = Suspect(0.09, 0, Place((Frame("/srv/a.py", 1, "login"),), None, "hash"))
    zips = Suspect(0.09, 0, Place((Frame("/srv/c.py", 3, "zip"),), None, "zip"))
    hog, seldom = Suspect(0.08, 0, HOG), Suspect(0.05, 0, HOG)
    assert HOG == culprit([hashes._replace(cpu=0.05), hog], looked(0.09, 0.09), 0.13)
    assert culprit([seldom], looked(0.09, 0.09), 0.14) is None  # who had it the other half?
    assert culprit([hashes, hog], looked(0.09, 0.09), 0.17) is None  # nothing tells which
    assert culprit([hashes, hashes], looked(0.09, 0.09), 0.18) is None  # at once: they do without
    ended = Suspect(0.09, 0, Place())
    assert culprit([hog, ended], looked(0.09, 0.09), 0.17) is None
    assert culprit([ended], looked(0.09, 0.09), 0.09) is None
    free = zips._replace(proved=-1)  # it may have had it before
    assert culprit([hashes, free], looked(0.09, 0.09), 0.18) is None
    assert culprit([free], looked(0.09, 0.09), 0.09) is None
    slept = looked(0.2, 0.09, idle=0.11)  # somebody did, with the interpreter
    assert culprit([hashes], slept, 0.09) is culprit([hog], slept, 0.05) is None
    made_to = Suspect(0.07, 1, HOG)  # let go of the interpreter
    assert HOG == culprit([hashes, zips, made_to], looked(0.09, 0.09), 0.14)
    a_little = made_to._replace(cpu=0.04)  # and another had it for the rest
    assert culprit([hashes, a_little], looked(0.09, 0.09), 0.13) is None


@pytest.mark.parametrize(
    ("clock", "expected"), [(lambda _: 1.0, 0), (lambda _: time.perf_counter(), -1)]
)
def test_a_thread_that_runs_while_the_look_has_the_interpreter_does_without(
    clock: Callable[[int], float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labkit.probe.suspects.thread_cpu", clock)
    with thread(lambda: time.sleep(0.01)):
        found = Suspects(threading.get_ident()).look(looked(0.09, 0.09, asked=18))
    assert [expected] == [each.proved for each in found if each.place.thread == "worker"]


def test_a_call_that_ran_without_the_interpreter_once_is_accused_of_nothing_by_cpu_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work() -> None:
        time.sleep(0.01)

    suspects, cpu = Suspects(threading.get_ident()), 1.0
    monkeypatch.setattr("labkit.probe.suspects.thread_cpu", lambda _: cpu)
    with thread(work):
        assert suspects.look(looked(0.0, 0.0)) == []  # this may be of long before
        with thread(work):  # another, at the same call
            [found] = suspects.look(looked(0.09, 0.09, asked=18))
        assert found.proved == 0
        cpu = 2.0
        assert suspects.look(looked(0.0, 0.0)) == []  # the interpreter was free, and it ran
        with thread(work):
            [found] = suspects.look(looked(0.09, 0.09, asked=18))
        assert found.proved == -1


def test_a_stop_while_the_loop_waits_is_the_machines_unless_a_thread_is_proved() -> None:
    """The sampler slept for a part of the stop: of that, it knows nothing."""
    m = looked(0.05, 0.02, stopped=0.03)
    seen = [Iteration(0.0, woken=0.1), Iteration(0.0, woken=0.1)]
    for iteration, who in zip(seen, (None, HOG), strict=True):
        iteration.add(0.1, m, 0.0, who, waits=True)
    assert pytest.approx(0.1) == judge(seen[0], 0.05, 0.0)
    assert isinstance(judge(seen[1], 0.05, 0.0), Stall)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells who waits")
def test_the_samplers_own_wait_for_a_processor_is_no_stop_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meters = Meters(threading.get_native_id())
    monkeypatch.setattr("os.pread", lambda file, *_: b"0 %d 0" % (9e12 * (file == meters._own)))
    m = looked(0.09, 0.0, stopped=0.09)
    meters.ask_the_system(m)
    meters.close()
    assert m.stopped == 0


def test_beside_a_thread_without_a_cpu_clock_cpu_time_proves_nothing() -> None:
    zips = Suspect(0.09, 0, Place((Frame("/srv/c.py", 3, "zip"),), None, "zip"))
    unknown = Suspect(None, 0, HOG)
    assert culprit([zips, unknown], looked(0.09, 0.09), 0.14) is None
    assert HOG == culprit([zips, unknown._replace(proved=1)], looked(0.09, 0.09), 0.14)


@pytest.mark.parametrize(("waits", "found"), [(0, 1), (14, 0)])
def test_an_idle_loop_that_asked_for_nothing_has_no_stall(waits: int, found: int) -> None:
    """A thread kept the interpreter; the loop's thread had woken up 14 times, for its sockets."""

    async def main() -> list[Stall]:
        probe = Probe(50)
        kept = Measured(1.0, 0.1, 0.06, 0.06, 0.0, 0.06, 0.0, loop_runs=14)
        Sampler(probe)._kept_while_waiting(kept, None, waits)
        return [*probe._stalls]

    assert found == len(asyncio.run(main()))


@pytest.mark.parametrize(
    ("file", "pauses"),
    [(bdb.__file__, True), ("/x/pydevd.py", True), (os.path.join(os.sep, "x", "bdb.py"), False)],
)
def test_a_file_of_the_users_is_no_debugger(file: str, pauses: bool) -> None:
    assert pauses is _is_debuggers(file)


def test_what_is_called_run_forever_is_no_loop_where_a_loop_has_called_it() -> None:
    """As websocket-client's: the line that called it held the loop."""
    library = str(Path(pytest.__file__).with_name("_app.py"))
    line = Frame("/srv/app.py", 3, "connect")
    calls = Frame(asyncio.events.__file__, 80, "_run")
    stack = (calls, line, Frame(library, 9, "run_forever"), Frame(library, 7, "recv"))
    assert users_frame(stack) == line
    assert users_frame(stack[1:]) == stack[-1], "uvloop has no other frame"


def test_a_task_s_own_get_name_is_not_called() -> None:
    class Named(asyncio.Task[None]):
        def get_name(self) -> str:
            raise RuntimeError

    async def block() -> None:
        time.sleep(0.06)

    async def main() -> list[Stall]:
        with Probe(20) as probe:
            await Named(block())
        return probe.stalls

    assert "blocked" in {stall.cause for stall in asyncio.run(main())}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no file is opened")
def test_a_file_that_has_got_a_number_of_the_probe_s_stays_open(tmp_path: Path) -> None:
    """A daemon closes the numbers that it finds, and opens its own files."""
    meters = Meters(threading.get_native_id())
    with (tmp_path / "log").open("w") as file:
        os.dup2(file.fileno(), meters._file)
        meters.ask_the_system(meters.read(0.0, (0.0, 0.0)))
        meters.close()
        assert os.fstat(meters._file).st_ino == os.fstat(file.fileno()).st_ino
        os.close(meters._file)


def test_no_clock_of_the_probe_s_can_be_frozen_by_its_name() -> None:
    """freezegun replaces the name of a clock in each module: then stalls were missed, or false."""
    modules = {name: it for name, it in sys.modules.items() if name.startswith("labkit.probe")}
    named = [name for name, it in modules.items() if time.perf_counter in vars(it).values()]
    assert len(modules) > 10
    assert [] == named


def test_a_file_beside_labkit_is_the_users() -> None:
    beside = str(Path(histogram.__file__).parents[2] / "labkit_service.py")
    assert not is_library(beside)
    assert is_library(histogram.__file__)
    assert users_frame((Frame(beside, 1, "main"),)) == Frame(beside, 1, "main")


# It breaks nothing.


class Handler(logging.Handler):
    def __init__(self, handle: Callable[[logging.LogRecord], object]) -> None:
        super().__init__()
        self.emit = handle  # type: ignore[method-assign, assignment]


@contextlib.contextmanager
def handling(handle: Callable[[logging.LogRecord], object]) -> Iterator[None]:
    log, handler = logging.getLogger("labkit.probe"), Handler(handle)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


def test_a_handler_may_ask_the_probe_and_may_hang() -> None:
    asked, going_on = threading.Event(), threading.Event()

    def handle(record: logging.LogRecord) -> None:
        assert probe.stalls is not None
        asked.set()
        going_on.wait(60)

    async def main() -> None:
        with probe:
            await asyncio.sleep(0.02)
            time.sleep(0.05)
            await asyncio.sleep(0.02)
            await asyncio.to_thread(asked.wait, 30)
            assert len(probe.stalls) >= 1

    probe = Probe(threshold_ms=20)
    with handling(handle):
        try:
            asyncio.run(main())  # leaving waits for no handler, or this hangs
            assert asked.is_set()
        finally:
            going_on.set()


@pytest.mark.parametrize("fails", [ZeroDivisionError, SystemExit])
def test_on_stall_is_called_with_each_and_dropped_when_it_fails(
    fails: type[BaseException],
) -> None:
    got: list[Stall] = []
    said: list[str] = []
    told = threading.Event()

    def on_stall(stall: Stall) -> None:
        got.append(stall)
        raise fails

    def handle(record: logging.LogRecord) -> None:
        said.append(record.getMessage())
        if "more" in record.getMessage():
            told.set()

    async def main() -> None:
        with probe:
            for _ in range(4):
                await asyncio.sleep(0.02)
                time.sleep(0.05)  # FOUR

    probe = Probe(threshold_ms=20, on_stall=on_stall)
    with handling(handle):
        asyncio.run(main())
        assert told.wait(30)
    assert 1 == len(got)
    assert 1 == said.count("on_stall failed, and is not called again")
    # A handler that hung in another test may go on only now.
    at = rf"blocked, at( or shortly before)? test_kinds\.py:{marked('FOUR')}"
    known = [text for text in said if re.search(at, text)]
    assert 2 == len(known), known  # the first at once, then how many more
    found = [stall for stall in probe.stalls if stall.cause == "blocked"]
    assert f"+ {len(found) - 1} more" in known[1]  # one can have been the machine's, where busy


def test_a_stall_that_does_not_end_is_told_while_it_lasts() -> None:
    free, told = threading.Event(), threading.Event()

    def handle(record: logging.LogRecord) -> None:
        if "still held" in record.getMessage() and record.levelno == logging.WARNING:
            told.set()
            free.set()

    async def main() -> None:
        with Probe(threshold_ms=20):
            await asyncio.sleep(0.02)
            free.wait(60)

    with handling(handle):
        asyncio.run(main())
    assert told.is_set()


def test_a_tracer_and_debug_mode_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labkit.probe.log._observed", set())
    said: list[str] = []
    told = threading.Event()

    def handle(record: logging.LogRecord) -> None:
        said.append(record.getMessage())
        told.set()

    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        for _ in range(2):
            with Probe():
                await asyncio.sleep(0.01)

    with handling(handle):
        asyncio.run(main())
        assert told.wait(30)
    assert 1 == sum("debug mode is on" in text for text in said)


# It can run for months.


def test_what_a_request_used_dies_with_it_and_on_its_own_thread() -> None:
    class Connection:
        def query(self) -> None:
            time.sleep(0.03)

        def __del__(self) -> None:
            died_on.append(threading.get_ident())

    died_on = list[int]()

    async def request() -> None:
        Connection().query()

    async def main() -> list[int]:
        left = []
        for number in range(1, 11):
            await asyncio.create_task(request())
            left.append(number - len(died_on))
            await asyncio.sleep(0.005)
        return left

    async def watched() -> list[int]:
        with Probe(20):
            return await main()

    with thread(hash_it):  # so that threads are looked at
        assert [0] * 10 == asyncio.run(watched())
    assert {threading.get_ident()} == {*died_on}


def test_what_a_worker_used_dies_with_it_and_on_its_own_thread() -> None:
    """CPython closes a file at the return that nobody else has, and who reads it next relies on it.

    One of ten outlived its function.
    """

    class Used:
        def __del__(self) -> None:
            died_on.append(threading.get_ident())

    died_on = list[int]()
    left = list[bool]()

    def work() -> None:
        used = Used()
        sum(range(100_000))
        assert used

    def job() -> None:
        before = len(died_on)
        work()
        left.append([threading.get_ident()] != died_on[before:])

    async def main() -> None:
        with Probe(20):
            for _ in range(200):
                await asyncio.to_thread(job)

    asyncio.run(main())
    assert sum(left) < 4  # a function can end in the very moment of a look


def test_a_stall_of_a_day_is_looked_at_a_thousand_times_at_most() -> None:
    sampler = Sampler(Probe(10))
    age, looks = 0.0, 0
    while age < 86_400:
        age += sampler._pause(age)
        looks += 1
    assert looks < 1000


def test_a_histogram_of_a_months_lag_stays_small_and_right() -> None:
    lags = histogram.Histogram()
    for i in range(1, 200_001):
        lags.add(i / 1e6)
    assert len(lags._counts) < 1000
    assert pytest.approx(0.1, rel=0.04) == lags.percentile(50)
    assert pytest.approx(0.198, rel=0.04) == lags.percentile(99)
    assert 0.2 == lags.percentile(100)


def test_the_noise_is_a_real_percentile_and_unknown_without_a_sample() -> None:
    probe = Probe()
    assert probe.noise_ms != probe.noise_ms  # NaN
    for late in (0.0001, 0.05):
        probe._noise.add(late)
    assert 50 == probe.noise_ms


def test_a_socket_that_is_never_read_is_no_stall() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 1), 0.2)

    stall = longest(main, 50)
    assert stall is None, str(stall)


class Registry(type):
    """A metaclass that looks names up, as some frameworks have it."""

    asked = 0

    def __getattr__(cls, name: str) -> Any:
        Registry.asked += 1
        raise KeyError(name)


class Listed(metaclass=Registry):
    pass


class Lazy:
    """A proxy that asks a database what class it is, as web frameworks have them."""

    asked = 0

    @property
    def __class__(self) -> Any:
        Lazy.asked += 1
        raise RuntimeError("no database here")

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...


def test_no_code_of_the_users_is_called_to_find_a_line() -> None:
    over = threading.Event()

    def hog() -> None:
        lazy, listed = Lazy(), Listed()  # on the stack of a thread that keeps the interpreter
        while not over.is_set():
            json.dumps([lazy is None, listed is None] * 10_000)

    hog.__code__ = hog.__code__.replace(co_filename=json.__file__)  # who sent it? is asked

    async def main() -> None:
        keeper = threading.Thread(target=hog)
        keeper.start()
        spin(0.3)
        over.set()
        keeper.join()

    Registry.asked = 0  # pytest has asked, when it collected the tests
    longest(main)
    assert 0 == Lazy.asked
    assert 0 == Registry.asked


class Compiled(Coroutine[Any, Any, None]):
    """Of a coroutine that was compiled, the frame stands at the function's first line for ever."""

    __slots__ = ("_held", "cr_await", "cr_frame")

    def __init__(self) -> None:
        self.cr_await = self._held = framework()
        self.cr_frame = sys._getframe()

    def send(self, value: Any) -> Any:
        return self._held.send(value)

    def throw(self, *error: Any) -> Any:
        return self._held.throw(*error)

    def close(self) -> None:
        self._held.close()

    def __await__(self) -> Any:
        return self._held.__await__()


Compiled.send.__code__ = Compiled.send.__code__.replace(co_filename=json.__file__)  # a library's


def test_a_compiled_coroutine_does_not_say_at_which_line_it_is() -> None:
    async def main() -> None:
        await asyncio.create_task(Compiled())  # AWAITS_COMPILED

    assert verdict(main) == ("blocked", marked("AWAITS_COMPILED"))


def test_an_awaitable_is_not_asked_what_it_does_not_have() -> None:
    class Proxy:
        def __init__(self, to: asyncio.Task[None]) -> None:
            self.to, self.steps = to, to.__await__()

        def __await__(self) -> Any:
            return self

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return next(self.steps)

        def __getattr__(self, name: str) -> Any:
            asked.append(name)
            raise RuntimeError("not connected")

    asked = list[str]()

    async def waiting(proxy: Any) -> None:
        await proxy

    async def later() -> None:
        await asyncio.sleep(0.02)
        await framework()

    for function in waiting, later:
        function.__code__ = function.__code__.replace(co_filename=json.__file__)

    async def main() -> None:
        task = asyncio.create_task(later())
        await asyncio.gather(asyncio.create_task(waiting(Proxy(task))))

    assert longest(main) is not None
    assert [] == [name for name in asked if name.endswith(("_frame", "_await"))]


def test_without_a_threads_cpu_clock_one_that_only_wakes_up_is_innocent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on macOS and Windows."""
    monkeypatch.setattr("labkit.probe.suspects.thread_cpu", lambda native_id: None)
    over = threading.Event()

    def heartbeat() -> None:
        while not over.is_set():
            time.sleep(0.003)
            time.sleep(0.002)

    async def main() -> None:
        beats = threading.Thread(target=heartbeat)
        beats.start()
        spin(0.2)
        over.set()
        beats.join()

    for _ in range(5):
        stall = longest(main)
        assert stall is None or stall.thread is None, stall


# Whatever the service does, the probe breaks nothing.


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_that_was_forked_in_the_middle_of_a_look_can_look_for_itself() -> None:
    program = """
import gc, os, threading, time
from labkit.probe.frames import no_collection
inside = threading.Event()
def look():
    with no_collection():
        inside.set()
        time.sleep(0.1)
threading.Thread(target=look).start()
inside.wait()
if os.fork() == 0:
    with no_collection():
        pass
    os._exit(0 if gc.isenabled() else 3)
assert os.wait()[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=30)


def test_a_service_that_clears_the_collectors_callbacks_goes_on() -> None:
    async def main() -> None:
        with Probe():
            gc.callbacks.clear()

    before = [*gc.callbacks]
    try:
        asyncio.run(main())
    finally:
        gc.callbacks[:] = before
    assert not [it for it in threading.enumerate() if it.name == "labkit-probe"]


def test_a_frame_is_shown_while_ipython_is_half_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    assert "app.py:3 in handler" == str(HANDLER.frame)


def test_a_line_without_an_end_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "generated.py"
    file.write_text("rows = [" + "1, " * 100_000 + "]")
    assert "rows = [1, 1," in (text := source(Frame(str(file), 1, "main")))
    assert text.endswith(" …")
    assert len(text) < 300
