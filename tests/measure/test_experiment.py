import asyncio
import contextlib
import functools
import gc
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pandas as pd
import psycopg2
import pytest

from labkit import LabError, Load, Run, bars, lower, measure, measure_pairs, similar
from labkit.display import diverted
from labkit.errors import Stopped
from labkit.exercises import notebooks
from labkit.measure import TooLong, experiment, left_behind, limited
from labkit.measure import machine as machine_module
from labkit.measure.run import DEBUG
from tests.stalls import unless_busy


async def no_op() -> None:
    pass


async def short(load: Load) -> None:
    load.offer("lookup", no_op, rate=100)
    await load.run(seconds=0.2)


async def blocking(load: Load) -> None:
    async def offend() -> None:
        time.sleep(0.1)  # BLOCK

    load.offer("lookup", no_op, rate=100)
    load.offer("offender", offend, rate=2)
    await load.run(seconds=0.5)


# What a run holds.


@pytest.fixture(scope="module")
def full() -> Run:
    async def everything(load: Load) -> None:
        async def lookup() -> None:
            with load.span("acquire"):
                await asyncio.sleep(0.001)

        async def fail() -> None:
            raise ValueError("no such order")

        async def offend() -> None:
            time.sleep(0.1)

        load.offer("lookup", lookup, rate=100)
        load.offer("failing", fail, rate=20)
        load.offer("offender", offend, rate=2)
        load.gauge("idle", lambda: 3)
        load.gauge("size", lambda: 5)
        await load.run(seconds=0.5)

    return measure(everything)


def test_requests_have_a_row_each_with_times_from_both_starts(full: Run) -> None:
    requests = full.requests
    assert [*requests.columns] == [
        "offer",
        "intended_s",
        "started_s",
        "error",
        "latency_ms",
        "service_ms",
    ]
    assert dict(requests.offer.value_counts()) == {"lookup": 50, "failing": 10, "offender": 1}
    assert set(requests.error.dropna()) == {"ValueError: no such order"}
    late_ms = 1e3 * (requests.started_s - requests.intended_s)
    assert (requests.latency_ms - requests.service_ms - late_ms).abs().max() < 1e-6
    assert requests.latency_ms[requests.offer == "offender"].item() >= 100
    assert requests.intended_s.between(0, 0.5).all()


def test_spans_have_a_row_each_and_belong_to_a_request(full: Run) -> None:
    assert [*full.spans.columns] == ["request", "span", "start_s", "span_ms"]
    assert set(full.spans.span) == {"acquire"}
    assert len(full.spans) == 50
    assert set(full.requests.offer[full.spans.request]) == {"lookup"}
    assert full.spans.span_ms.min() >= 1


def test_gauges_have_a_column_each(full: Run) -> None:
    assert [*full.gauges.columns] == ["idle", "size"]
    assert full.gauges.index.name == "at_s"
    assert set(full.gauges.idle) == {3}
    assert set(full.gauges["size"]) == {5}
    assert full.gauges.index.max() > 0.4


def test_gauges_are_weighed_by_time_not_by_readings() -> None:
    gauges = pd.DataFrame({"idle": [5, 0, 5, 5]}, index=[0, 0.2, 1.8, 1.9])
    run = replace(measure(short), seconds=2.0, gauges=gauges)
    assert run.share_of_time("idle", lambda idle: idle == 0) == pytest.approx(0.8)
    with pytest.raises(LabError, match=r"There is no gauge 'busy' in 'short'"):
        run.share_of_time("busy", bool)


def test_lag_has_a_row_for_each_moment_and_its_longest(full: Run) -> None:
    assert [*full.lag.columns] == ["at_s", "lag_ms"]
    [stall] = full.stalls
    assert full.lag.lag_ms.max() == pytest.approx(stall.duration_ms)
    assert full.lag.at_s.between(0, 1).all()


def test_latency_is_of_completed_requests_and_failures_are_counted(full: Run) -> None:
    assert full.victim == "lookup"
    assert full.latency().count == 50
    assert full.latency() == full.latency("lookup")
    times = full.requests.latency_ms[full.requests.offer == "lookup"]
    assert full.latency().p50 == pytest.approx(times.quantile(0.5))
    assert full.latency().p99 == pytest.approx(times.quantile(0.99))
    assert full.latency().max == pytest.approx(times.max())
    assert full.latency("failing").count == 0
    assert str(full.latency("failing")) == "none completed"
    assert (full.failed(), full.failed("failing"), full.failed("lookup")) == (10, 10, 0)


def test_a_run_says_in_a_line_what_it_saw(full: Run) -> None:
    text = str(full)
    assert text.startswith("everything: 61 requests, 10 failed (ValueError: no such order); lookup")
    assert str(full.latency()) in text
    assert text.endswith(f"; 1 stall of {full.stalls[0].duration_ms:.0f} ms")
    assert repr(full) == text


def test_figures_are_plain_numbers(full: Run) -> None:
    figures = full.figures()
    assert [*figures] == [
        "name",
        "requests",
        "errors",
        "p50_ms",
        "p99_ms",
        "max_ms",
        "stalls",
    ]
    assert (figures["requests"], figures["errors"], figures["stalls"]) == (61, 10, 1)
    assert {type(value) for value in figures.values()} == {str, int, float}


def test_a_stall_is_found_with_its_line() -> None:
    [stall] = measure(blocking).stalls
    assert ((stall.frame or (None,))[0], stall.source) == (__file__, "time.sleep(0.1)  # BLOCK")
    assert stall.duration_ms >= 100


def test_the_threshold_can_be_lowered() -> None:
    async def brief(load: Load) -> None:
        async def offend() -> None:
            time.sleep(0.02)

        load.offer("lookup", offend, rate=5)
        await load.run(seconds=0.4)

    # What the machine kept from running meanwhile is no stall.
    run = unless_busy(lambda: measure(brief, threshold_ms=10), lambda run: len(run.stalls) >= 2)
    assert len(run.stalls) >= 2


def test_a_run_is_named_after_its_scenario_or_as_told() -> None:
    assert measure(short).name == "short"
    assert measure(short, name="as told").name == "as told"


# The line that tells of the progress.


def test_the_strip_shows_a_stall_for_as_long_as_it_held_the_loop() -> None:
    ended_long_ago, ended, goes_on = (0.5, 900.0), (8.55, 240.0), (9.0, 20.0)
    strip = experiment.lag_strip([ended_long_ago, ended, goes_on], 9.0, full_ms=50.0)
    assert "▁" * 13 + "███" + "▁" * 3 + "▃" == strip
    almost = experiment.lag_strip([(1.0, 49.9)], 1.0, full_ms=50.0)
    assert "▁" * 19 + "▇" == almost


def test_a_freeze_is_seen_in_the_progress_line() -> None:
    told: list[str] = []
    with diverted(lambda bundle, _: told.append(bundle["text/plain"])):
        measure(blocking)
    strips = [text.split()[-1] for text in told if "loop lag" in text]
    assert strips
    assert "█" not in strips[0]
    assert "█" in strips[-1]


# Debug mode.


async def debugged(load: Load) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.05
    await blocking(load)


def test_debug_mode_is_said_beside_the_latencies() -> None:
    run = measure(debugged)
    assert run.invalid == DEBUG
    assert str(run).endswith("; asyncio's debug mode was on: these are not your service's times")
    assert not measure(short).invalid


def test_slow_callback_warnings_are_caught() -> None:
    [warning] = measure(debugged).warnings
    assert warning.startswith("Executing <Task ")
    assert "took 0.1" in warning


def test_warnings_of_other_threads_are_not_caught() -> None:
    async def busy_elsewhere(load: Load) -> None:
        def warn() -> None:
            logging.getLogger("asyncio").warning("from another thread")

        thread = threading.Thread(target=warn)
        thread.start()
        thread.join()
        logging.getLogger("asyncio").warning("from this thread")
        await short(load)

    filters = logging.getLogger("asyncio").filters[:]
    assert measure(busy_elsewhere).warnings == ("from this thread",)
    assert logging.getLogger("asyncio").filters == filters


def test_what_a_pool_logs_of_a_lost_server_is_kept_and_not_printed() -> None:
    code = """
import asyncio, logging
from asyncpg import pool
from labkit.measure import measure

async def lost(load):
    load.offer("lookup", lambda: asyncio.sleep(0), rate=20)
    await load.run(seconds=0.2)
    pool.logger.warning("the pool's", exc_info=OSError("no server"))
    logging.getLogger("a library").warning("another's")

run = measure(lost)
assert run.warnings == ("the pool's",), run.warnings
assert not pool.logger.filters and not pool.logger.handlers
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (0, "another's") == (ended.returncode, ended.stderr.strip())


def test_debug_mode_is_noticed_though_it_is_on_only_while_the_load_begins_or_ends() -> None:
    async def at_its_begin(load: Load) -> None:
        asyncio.get_running_loop().set_debug(True)
        asyncio.get_running_loop().call_later(0.1, asyncio.get_running_loop().set_debug, False)
        await short(load)

    async def at_its_end(load: Load) -> None:
        asyncio.get_running_loop().call_later(0.1, asyncio.get_running_loop().set_debug, True)
        await short(load)

    assert measure(at_its_begin).invalid == DEBUG
    assert measure(at_its_end).invalid == DEBUG


def test_a_tracer_is_said_beside_the_latencies() -> None:
    def tracer(*_: Any) -> None: ...

    threading.settrace(tracer)  # as coverage and debuggers do
    try:
        run = measure(short)
    finally:
        threading.settrace(None)
    assert run.invalid == "a tracer or a profiler was on"
    assert "a tracer or a profiler was on" in str(run)
    assert not measure(short).invalid


# The machine.


@pytest.mark.skipif(sys.platform == "win32", reason="stops itself by a signal")
def test_a_pause_of_the_machine_is_recorded_and_left_out() -> None:
    stop = "import os, signal, sys, time; print(flush=True); input(); time.sleep(0.3)"
    stop += "; os.kill(int(sys.argv[1]), signal.SIGSTOP)"
    stop += "; time.sleep(0.3); os.kill(int(sys.argv[1]), signal.SIGCONT)"

    async def scenario(load: Load) -> None:
        load.offer("lookup", lambda: asyncio.sleep(0.001), rate=200)
        await load.run(seconds=1.5)

    async def paused(load: Load) -> None:
        stopper.stdin.write(b"\n")  # type: ignore[union-attr]
        stopper.stdin.flush()  # type: ignore[union-attr]
        await scenario(load)

    command = [sys.executable, "-c", stop, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stopper:
        assert stopper.stdout
        stopper.stdout.readline()  # it has started
        run = measure(paused)
    start, end = max(run.machine.pauses, key=lambda pause: pause[1] - pause[0])
    assert 0.2 < end - start < 0.6
    assert run.latency().p99 > 150
    assert run.undisturbed.latency().p99 < 50
    assert lower("it fell", 2, run, measure(scenario)).held is not True


def test_a_pause_that_comes_while_the_clocks_are_read_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = iter([0.0] * 5 + [0.1])

    def queued(_: int) -> float:
        time.sleep(next(waits, 0.0))
        return 0.0

    monkeypatch.setattr(machine_module, "_queued", queued)
    [(start, end)] = [it for it in measure(short).machine.pauses if it[1] - it[0] > 0.09]
    assert end - start < 0.2


def test_time_that_the_loops_thread_queued_for_a_processor_is_lateness_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queued = iter([0.0, 0.0, 0.012, 0.012, 0.112])  # s so far, each 3 ms
    monkeypatch.setattr(machine_module, "_queued", lambda thread: next(queued, 0.112))
    run = measure(short)
    assert run.machine.late(1) >= 12
    assert max(end - start for start, end in run.machine.pauses) > 0.099


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_linux_tells_for_how_long_a_thread_queued() -> None:
    path = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    assert len(path.read_text().split()) == 3
    assert machine_module._queued(threading.get_native_id()) >= 0
    assert machine_module._queued(-1) == 0  # as where nothing is told


def test_what_the_services_own_threads_do_is_no_lateness_of_the_machine() -> None:
    def hog(stop: threading.Event) -> None:
        while not stop.is_set():
            sum(i * i for i in range(1000))

    async def hogged(load: Load) -> None:
        stop = threading.Event()
        thread = threading.Thread(target=hog, args=(stop,))
        thread.start()
        try:
            load.offer("lookup", lambda: asyncio.sleep(0.005), rate=100)
            await load.run(seconds=0.6)
        finally:
            stop.set()
            thread.join()

    run = unless_busy(lambda: measure(hogged), lambda run: run.machine.late(0.5) < 1)
    assert run.machine.late(0.5) < 1  # though as a rule the watching thread waits for 5 ms
    assert run.latency().p50 > 7


# What it leaves behind.


def test_nothing_is_left_behind() -> None:
    threads = set(threading.enumerate())
    frozen = gc.get_freeze_count()
    callbacks = gc.callbacks[:]
    measure(blocking)
    assert set(threading.enumerate()) == threads
    assert gc.get_freeze_count() == frozen == 0
    assert gc.callbacks == callbacks


def test_tasks_that_a_scenario_leaves_are_ended() -> None:
    tasks: list[asyncio.Task[None]] = []

    async def untidy(load: Load) -> None:
        tasks.append(asyncio.create_task(asyncio.sleep(3600)))
        await short(load)

    measure(untidy)
    assert [task.cancelled() for task in tasks] == [True]


def test_it_works_where_a_loop_runs_already() -> None:
    async def cell() -> Run:
        return measure(short)  # as in Jupyter: the cell's own loop stands still meanwhile

    assert asyncio.run(cell()).latency().count == 20


# Bad input.


def test_a_scenario_that_raises_is_told_with_its_line() -> None:
    async def broken(load: Load) -> None:
        load.offer("lookup", no_op, rate=10)
        {}["no such key"]  # type: ignore[index]

    threads = set(threading.enumerate())
    with pytest.raises(LabError) as raised:
        measure(broken)
    line = broken.__code__.co_firstlineno + 2
    assert str(raised.value).startswith("The scenario 'broken' raised KeyError: 'no such key'\n")
    assert f"at test_experiment.py:{line} in broken. " in str(raised.value)
    assert set(threading.enumerate()) == threads
    assert gc.get_freeze_count() == 0


def test_an_exception_in_a_group_is_told() -> None:
    async def fail() -> None:
        raise ValueError("in the group")

    async def grouped(load: Load) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    with pytest.raises(LabError, match="'grouped' raised ValueError: in the group"):
        measure(grouped)


def test_a_mistake_in_the_scenario_keeps_its_own_words() -> None:
    async def mistaken(load: Load) -> None:
        load.offer("lookup", no_op, rate=0)

    with pytest.raises(LabError, match=r"^offer\('lookup'\) was given rate=0\. Expected"):
        measure(mistaken)


def test_a_load_that_was_cut_short_is_no_measurement() -> None:
    async def impatient(load: Load) -> None:
        load.offer("lookup", no_op, rate=100)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await load.run(seconds=0.5)

    async def forgetful(load: Load) -> None:
        load.offer("lookup", no_op, rate=100)
        task = asyncio.create_task(load.run(seconds=0.5))
        await asyncio.sleep(0.1)
        assert not task.done()

    for scenario in (impatient, forgetful):
        with pytest.raises(LabError, match=r"ended before its load did(.|\n)*run\(seconds=0.5\)"):
            measure(scenario)


def test_a_scenario_that_never_runs_the_load_is_told() -> None:
    async def idle(load: Load) -> None:
        load.offer("lookup", no_op, rate=10)

    with pytest.raises(
        LabError, match=r"'idle' ended before it ran its load(.|\n)*await load\.run\(seconds="
    ):
        measure(idle)


def test_a_plain_function_is_refused() -> None:
    def plain(load: Load) -> None: ...

    scenario: Any = plain
    with pytest.raises(LabError, match=r"given 'plain', which is no coroutine function"):
        measure(scenario)
    scenario = short(Load())
    with pytest.raises(LabError, match=r"given 'short', which is no coroutine function"):
        measure(scenario)
    scenario.close()


def test_a_process_patched_by_nest_asyncio_is_refused() -> None:
    program = """
        import asyncio, nest_asyncio, labkit
        async def scenario(load): ...
        nest_asyncio.apply(asyncio.new_event_loop())
        try:
            labkit.measure(scenario)
        except labkit.LabError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "patched by nest_asyncio" in said
    assert "Remove nest_asyncio.apply() and restart the kernel" in said


# The stop button.

STOPPED = """
import asyncio, signal, sys, time, asyncpg, labkit

# A shell that runs the tests in the background hands SIGINT down ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def scenario(load):
    async with asyncpg.create_pool(sys.argv[1], min_size=3, max_size=3) as pool:
        async def offend():
            print("held", flush=True)
            time.sleep({held})  # HERE
        load.offer("lookup", lambda: pool.fetchval("select 1"), rate=100)
        load.offer("offender", offend, rate=2)
        await load.run(seconds=60)

try:
    labkit.measure(scenario)
except KeyboardInterrupt as stopped:
    print("stopped", stopped, flush=True)
sys.stdin.readline()
"""


def stop(dsn: str, held: float) -> tuple[str, float, "subprocess.Popen[str]"]:
    """Stop a process that measures; return what it said, after how long, and the process."""
    server = dsn[:] + "?application_name=stopped"
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED.format(held=held), server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    began = monotonic()
    process.send_signal(signal.SIGINT)
    for line in process.stdout:
        if line.startswith("stopped"):
            return line, monotonic() - began, process
    raise AssertionError(f"ended with {process.wait()} and without KeyboardInterrupt")


def connections(dsn: str) -> int:
    connection = psycopg2.connect(dsn[:])
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "select count(*) from pg_stat_activity where application_name = 'stopped'"
            )
            [[count]] = cursor.fetchall()
            return int(count)
    finally:
        connection.close()


def all_closed(dsn: str) -> bool:
    deadline = monotonic() + 20
    while connections(dsn) and monotonic() < deadline:
        time.sleep(0.01)
    return connections(dsn) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_the_stop_button_ends_the_scenario_and_closes_its_connections(dsn: str) -> None:
    said, took, process = stop(dsn, held=0.1)
    with process:
        assert said == "stopped scenario was stopped.\n"
        assert took < 2
        assert all_closed(dsn)
        assert process.poll() is None  # it is not that the process has gone
        process.communicate("\n")
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_the_stop_button_answers_while_the_loop_is_held_and_says_where(dsn: str) -> None:
    said, took, process = stop(dsn, held=3)
    with process:
        assert took < 2
        assert said.startswith("stopped scenario was stopped; its loop is still held at <string>:")
        assert said.endswith(" in offend.\n")
        assert connections(dsn) == 3  # it was held indeed
        assert all_closed(dsn)  # once the call that held it is over
        process.communicate("\n")
    assert process.returncode == 0


def test_the_stop_button_is_heard_while_garbage_is_collected() -> None:
    class Pressing:
        def __init__(self) -> None:
            self.me = self  # so that only the collector finds it

        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # so that nobody finds it earlier
    Pressing()
    try:
        with pytest.raises(Stopped, match="short was stopped"):
            measure(short)
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, before)


# Pairs.


def test_pairs_are_measured_in_turn_and_alternate_which_comes_first() -> None:
    order = []

    async def before(load: Load) -> None:
        order.append("before")
        await short(load)

    async def after(load: Load) -> None:
        order.append("after")
        await short(load)

    befores, afters = measure_pairs(before, after, times=3)
    assert order == ["before", "after", "after", "before", "before", "after"]
    assert [run.name for run in befores] == ["before"] * 3
    assert [run.name for run in afters] == ["after"] * 3


def test_an_offer_that_there_is_not_is_told_with_those_that_there_are(full: Run) -> None:
    with pytest.raises(LabError, match=r"There is no offer 'typo' in .* Expected one of: "):
        full.latency("typo")


def test_a_partial_scenario_can_be_measured() -> None:
    async def scenario(rate: int, load: Load) -> None:
        load.offer("lookup", no_op, rate=rate)
        await load.run(seconds=0.1)

    assert len(measure(functools.partial(scenario, 20)).requests) == 2


def test_labkit_is_imported_quickly() -> None:
    # By its own CPU time: on a busy machine, the clock tells of others.
    code = "import time; t = time.process_time(); import labkit; print(time.process_time() - t)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    assert min(times) < 0.3


def test_the_probe_needs_nothing_but_the_standard_library() -> None:
    code = (
        "import asyncio, sys, time; sys.path.insert(0, '.'); import labkit\n"
        "async def main():\n"
        "    with labkit.Probe() as probe:\n"
        "        await asyncio.sleep(0); time.sleep(0.1); await asyncio.sleep(0)\n"
        "    print(len(probe.stalls), 'numpy' in sys.modules)\n"
        "asyncio.run(main())"
    )
    command = [sys.executable, "-I", "-S", "-c", code]  # -S: without site-packages
    done = subprocess.run(command, capture_output=True, text=True, cwd=notebooks().parent)
    assert done.stdout.split() == ["1", "False"], done.stderr


def test_a_crowd_that_never_gives_the_loop_back_is_broken_off_too() -> None:
    async def spin() -> None:
        while True:
            pass

    async def crowded(load: Load) -> None:
        load.offer("spin", spin, rate=2, burst=10)
        await load.run(seconds=1)

    for seconds in (2.5, 10):  # a busy machine may need so long until the crowd is there
        with limited(seconds), pytest.raises(TooLong) as raised:
            measure(crowded)
        if "held" in str(raised.value):
            break
    assert re.search(r"its loop was held at .* in spin", str(raised.value))
    assert left_behind() is None


def test_nothing_is_measured_while_what_was_stopped_still_runs() -> None:
    async def stubborn(load: Load) -> None:
        load.offer("lookup", no_op, rate=100)
        time.sleep(3)

    with limited(0.2), pytest.raises(TooLong, match="is still held at"):
        measure(stubborn)
    with pytest.raises(LabError, match=r"Nothing was measured: .* still runs, at .* in stubborn"):
        measure(short)
    while left_behind():
        pass
    assert measure(short).latency().count == 20
    gc.collect()
    assert not [*experiment._outlived]  # and nothing keeps it


@pytest.mark.skipif(sys.platform != "linux", reason="nobody else tells a thread's CPU time")
@pytest.mark.parametrize("start", ["executor", "thread"])
def test_nothing_is_measured_while_a_thread_that_a_scenario_left_still_computes(start: str) -> None:
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1_000))

    async def leaving(load: Load) -> None:
        load.offer("lookup", no_op, rate=100)
        await load.run(seconds=0.2)
        if start == "thread":
            threading.Thread(target=compute, daemon=True).start()
        else:
            executor.submit(compute)

    with ThreadPoolExecutor(1, "reports") as executor:
        measure(leaving)
        try:
            with pytest.raises(LabError, match=r"still runs, at .* in compute, in the thread '.+'"):
                measure(short)
        finally:
            over.set()
        idle = any(thread.name == "reports_0" for thread in threading.enumerate())
        assert idle == (start == "executor")
        assert measure(short).latency().count == 20  # which does no harm


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: measure(short, threshold_ms=cast(Any, "50")), "threshold_ms is '50'"),
        (lambda: measure_pairs(short, short, times=cast(Any, 1.5)), "given times=1.5"),
        (lambda: measure_pairs(short, short, times=0), "given times=0"),
        (lambda: lower("less", -1, 2.0, 1.0), "'less': -1 times were claimed"),
        (lambda: similar("alike", 0, 2.0, 1.0), "'alike': 0 times were claimed"),
        (lambda: bars({"a": cast(Any, None)}, title="t", unit="u"), "bars.. was given None"),
    ],
)
def test_what_is_no_number_is_refused_in_words(call: Callable[[], object], said: str) -> None:
    with pytest.raises(LabError, match=said):
        call()


def spin_for_ever() -> None:
    while True:
        pass


@pytest.mark.parametrize("hold", [spin_for_ever, functools.partial(time.sleep, 2.5)])
def test_a_scenario_broken_off_where_it_holds_its_loop_cleans_up_to_the_end(hold: Any) -> None:
    cleaned = []

    async def scenario(load: Load) -> None:
        load.offer("lookup", no_op, rate=100)
        try:
            hold()
        finally:
            await asyncio.sleep(0.1)  # as a table of its own is dropped
            cleaned.append(True)

    with limited(0.3), pytest.raises(TooLong, match=r"its loop (was|is still) held at"):
        measure(scenario)
    while left_behind():
        pass
    assert cleaned


def test_a_stall_says_how_many_requests_it_held_up_and_for_how_long() -> None:
    run = unless_busy(lambda: measure(blocking), lambda run: len(run.stalls) == 1)
    [stall] = run.stalls
    count, waited_ms = run.hurt(stall)
    assert count >= 2
    assert stall.duration_ms <= waited_ms <= count * stall.duration_ms
