import asyncio
import gc
import json
import logging
import math
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import asyncpg
import pytest

from labkit import Frame, LabError, Probe, Stall
from labkit.measure.load import Load
from labkit.probe import looks, timing, watch
from labkit.probe.frames import Stack, is_users, users_frame, walk
from labkit.probe.looks import Sampler
from labkit.probe.verdict import judge
from tests.stalls import json_dump, json_rate, scores, ticking, unless_busy

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T], make: Callable[[], Any] = asyncio.SelectorEventLoop) -> T:
    with asyncio.Runner(loop_factory=make) as runner:
        return runner.run(main)


async def settle() -> None:
    """Let the loop be idle for a moment, as between requests."""
    await asyncio.sleep(0.02)


def block(seconds: float) -> None:
    time.sleep(seconds)  # BLOCK


def block_line() -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.endswith("# BLOCK"))


def line_of(stall: Stall) -> int | None:
    return stall.frame.line if stall.frame else None


def wait_for_record(caplog: pytest.LogCaptureFixture, text: str) -> logging.LogRecord:
    """The record that holds a text; stalls are told of on a thread of the probe's own."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for record in caplog.records:
            if text in record.getMessage():
                return record
        time.sleep(0.005)
    raise AssertionError(f"nothing said {text!r}: {caplog.messages}")


async def blocked_for(seconds: float, threshold_ms: float = 10) -> tuple[Probe, Stall]:
    """Block the loop once under a probe; the longest stall is that one."""
    with Probe(threshold_ms) as watching:
        await settle()
        block(seconds)
        await settle()
    assert watching.stalls, "the stall was not found"
    return watching, max(watching.stalls, key=lambda stall: stall.duration_ms)


# Stalls of known length, kind and line (tests/stalls.py).


@pytest.fixture(scope="module", params=["asyncio as it is", "nest_asyncio"])
def scored(request: pytest.FixtureRequest, dsn: str) -> Any:
    if request.param == "asyncio as it is":
        return scores(dsn, 5)
    if sys.version_info >= (3, 14):
        pytest.skip("asyncpg cannot connect under nest_asyncio from Python 3.14 on (notebook 00)")
    program = [sys.executable, "-m", "tests.stalls", dsn[:], "--nest"]
    checkout = Path(__file__).parents[2]
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE, cwd=checkout)
    return json.loads(done.stdout)


def test_every_stall_is_found(scored: Any) -> None:
    assert scored["stalls"] > 40
    assert scored["missed"] == []


def test_the_guilty_line_is_named(scored: Any) -> None:
    assert scored["lines"] >= (0.98 if scored["calm"] else 0.9), scored["wrong"]


def test_the_cause_is_right(scored: Any) -> None:
    assert scored["causes"] >= (0.95 if scored["calm"] else 0.75), scored["wrong"]


def test_the_duration_is_right_to_a_millisecond(scored: Any) -> None:
    assert scored["error_ms"] < 1


# The arithmetic, on clocks that stand still.


class Machine:
    """Clocks, a selector that waits on them, and a timer between the two."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threshold: float) -> None:
        self.now, self.cpu, self.late, self.timer = 100.0, 0.0, 0.0, timing.Timer(threshold)
        monkeypatch.setattr(timing, "perf_counter", partial(lambda: self.now))
        monkeypatch.setattr(timing, "thread_time", lambda: self.cpu)
        loop: Any = SimpleNamespace(_selector=self, call_soon=lambda *_: None)
        self.timer.start(loop)

    def select(self, timeout: float) -> list[Any]:
        self.now += timeout + self.late
        return []

    def compute(self, seconds: float) -> None:
        self.now, self.cpu = self.now + seconds, self.cpu + seconds

    def verdicts(self) -> list[Stall | float]:
        timer = self.timer
        return [judge(seen, timer.threshold, timer.entered) for seen in timer.over]


def test_every_window_of_lag_ends_though_each_wait_ends_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, 0.05)
    machine.late = 0.005
    for _ in range(1000):
        machine.select(0.01)
        machine.compute(0.0002)
    ends = [at for at, _ in machine.timer.lag]
    assert max(b - a for a, b in pairwise(ends)) < 0.04
    assert machine.verdicts() == []


def test_the_cpu_time_of_earlier_iterations_is_not_a_late_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, 0.01)
    machine.select(0.002)
    machine.compute(0.009)
    machine.late = 0.012
    machine.select(0.002)
    machine.select(0)
    assert machine.verdicts() == [pytest.approx(0.012)]  # nobody ran: the machine was late


def test_a_loop_is_busy_while_it_is_kept_from_ending_its_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, 0.05)
    machine.late = 0.09  # as where a thread keeps the interpreter
    for _ in range(10):
        machine.select(0.01)
    assert 0.1 == pytest.approx(machine.timer.waited)


# What is no stall.


def test_five_quiet_seconds_of_lookups_have_no_stall(dsn: str) -> None:
    async def main() -> list[str]:
        async with asyncpg.create_pool(dsn, min_size=5, max_size=5) as pool:
            load = Load()
            sql = "select * from labkit.orders where id = $1"
            load.offer("lookup", lambda: pool.fetchrow(sql, 7), rate=200)
            with Probe(threshold_ms=10) as watching:
                await load.run(seconds=5)
            return [str(stall) for stall in watching.stalls]

    assert unless_busy(lambda: run(main()), lambda stalls: stalls == [], quiet=True) == []


def test_many_short_calls_are_no_stall() -> None:
    async def main() -> Probe:
        with Probe(threshold_ms=50) as watching:
            for _ in range(60):
                block(0.005)
                await asyncio.sleep(0)
        return watching

    watching = run(main())
    assert watching.lag_now_ms >= 0
    assert watching.stalls == []
    assert max(lag for _, lag in watching.lag) >= 5  # and it did look


def test_a_nested_run_that_only_waits_is_no_stall() -> None:
    program = """
import asyncio, nest_asyncio
nest_asyncio.apply(asyncio.new_event_loop())
from labkit import Probe

async def main():
    with Probe(threshold_ms=10) as watching:
        for _ in range(5):
            asyncio.get_running_loop().run_until_complete(asyncio.sleep(0.06))
    print([str(stall) for stall in watching.stalls if stall.duration_ms > 50])

with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
    runner.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)
    assert done.stdout.split() == [b"[]"]


# What a stall says.


def test_a_stall_tells_where_when_and_why() -> None:
    _, stall = run(blocked_for(0.03))
    assert stall.cause == "blocked"
    assert stall.frame == Frame(__file__, block_line(), "block")
    assert stall.source == "time.sleep(seconds)  # BLOCK"
    assert [frame.function for frame in stall.stack][-2:] == ["blocked_for", "block"]
    assert stall.stack[-1] == stall.frame
    assert stall.samples > 1
    assert stall.tasks == 1
    assert stall.thread is None
    assert stall.start_s >= 0.02
    assert stall.duration_ms >= 30


def test_lag_shows_the_stall() -> None:
    watching, stall = run(blocked_for(0.03))
    assert max(lag for _, lag in watching.lag) == pytest.approx(stall.duration_ms)
    at = max(watching.lag, key=lambda row: row[1])[0]
    assert at == pytest.approx(stall.start_s + stall.duration_ms / 1e3, abs=0.001)


def test_the_users_line_is_named_when_the_stall_is_inside_a_library() -> None:
    async def main() -> Probe:
        with Probe(threshold_ms=10) as watching:
            await settle()
            call = [sys.executable, "-c", "import time; time.sleep(0.1)"]
            subprocess.run(call, check=True)
            await settle()
        return watching

    stall = max(run(main()).stalls, key=lambda stall: stall.duration_ms)
    assert (stall.frame or (None,))[0] == __file__
    assert stall.source == "subprocess.run(call, check=True)"
    assert stall.stack[-1].file == subprocess.__file__


def test_a_call_that_keeps_the_interpreter_is_marked_approximate(dsn: str) -> None:
    async def main() -> Probe:
        with Probe(threshold_ms=10) as watching:
            await settle()
            json_dump(int(0.06 * json_rate()))
            await settle()
        return watching

    json_rate()
    assert max(run(main()).stalls, key=lambda stall: stall.duration_ms).approximate


def test_the_thread_that_starves_the_loop_is_named() -> None:
    def hog() -> None:
        for _ in range(5):  # one such call can be over before anybody can look
            json_dump(int(0.03 * json_rate()))

    async def main() -> Probe:
        with Probe(threshold_ms=10) as watching:
            await ticking(threading.Thread(target=hog, name="hog"))
        return watching

    json_rate()
    stalls = run(main()).stalls
    assert ("starved by another thread", "hog", "json_dump") in {
        (stall.cause, stall.thread, stall.frame and stall.frame.function) for stall in stalls
    }


def test_a_stall_still_going_on_at_the_end_is_counted() -> None:
    async def main() -> Probe:
        with Probe(threshold_ms=10) as watching:
            await settle()
            block(0.03)
        return watching

    [stall] = run(main()).stalls
    assert (line_of(stall), stall.cause) == (block_line(), "blocked")
    assert stall.duration_ms >= 30


def test_a_stall_is_there_as_soon_as_it_is_over() -> None:
    async def main() -> None:
        with Probe(threshold_ms=50) as watching:
            await settle()
            block(0.1)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert block_line() in {line_of(stall) for stall in watching.stalls}
            assert "in block" in str(watching.summary())

    run(main())


def test_stalls_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "labkit.probe"):
        _, stall = run(blocked_for(0.03))
        said = wait_for_record(caplog, str(stall))
    assert (said.name, said.levelname) == ("labkit.probe", "INFO")
    assert "(what to do: python -m labkit.probe why blocked)" in said.getMessage()
    at = rf"at( or shortly before)? test_probe\.py:{block_line()}"  # the first look may come late
    assert re.search(rf"ms, blocked, {at} in block: time\.sleep", str(stall))


# Which loops.


def test_it_watches_a_loop_that_somebody_else_made() -> None:
    _, stall = run(blocked_for(0.03), asyncio.new_event_loop)
    assert (line_of(stall), stall.cause) == (block_line(), "blocked")


def test_it_watches_through_any_selector() -> None:
    def loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(selectors.SelectSelector())

    _, stall = run(blocked_for(0.03), loop)
    assert block_line() == line_of(stall)


@pytest.mark.parametrize("threshold_ms", [10, 50])
def test_it_watches_uvloop_by_a_heartbeat(threshold_ms: float) -> None:
    uvloop = pytest.importorskip("uvloop")
    asked = 3 * threshold_ms

    def attempt() -> tuple[int | None, str, float]:
        main = blocked_for(asked / 1e3, threshold_ms)
        _, stall = run(main, uvloop.new_event_loop)
        return line_of(stall), stall.cause, stall.duration_ms

    room: Any = pytest.approx(asked, abs=threshold_ms / 10 + 1)
    expected = (block_line(), "blocked", room)
    assert expected == unless_busy(attempt, lambda seen: seen == expected, quiet=True)


def test_a_heartbeat_ends_with_the_probe() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> Probe:
        with Probe(threshold_ms=10) as watching:
            await settle()
        block(0.03)
        await settle()
        return watching

    watching = run(main(), uvloop.new_event_loop)
    assert block_line() not in {line_of(stall) for stall in watching.stalls}


# Entering and leaving.


def traces() -> tuple[Any, ...]:
    """Everything that a probe touches."""
    loop: Any = asyncio.get_running_loop()
    names = sorted(thread.name for thread in threading.enumerate())
    return (
        loop in watch._watched,
        loop._selector.select,
        dict(vars(loop._selector)),
        gc.callbacks[:],
        names,
    )


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_leaving_undoes_everything(ends: str) -> None:
    async def main() -> None:
        before = traces()
        with suppress(ZeroDivisionError), Probe(threshold_ms=10):
            await settle()
            during = traces()
            if ends == "badly":
                raise ZeroDivisionError
        changed = [b != d for b, d in zip(before, during, strict=True)]
        assert changed == [True] * len(before)
        assert traces() == before

    run(main())


def test_another_wrapper_of_the_selector_is_given_back() -> None:
    async def main() -> None:
        selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        other = selector.select = lambda timeout=None: type(selector).select(selector, timeout)
        with Probe():
            await settle()
            assert selector.select is not other
        assert selector.select is other

    run(main())


def test_what_still_wraps_the_selector_after_leaving_counts_nothing() -> None:
    async def main() -> None:
        selector: Any = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        with Probe() as probe:
            timed = selector.select
            selector.select = lambda timeout=None: timed(timeout)
            await settle()
        busy = probe.summary()["busy"]
        await asyncio.sleep(0.2)
        assert busy == probe.summary()["busy"]
        assert selector.select is not timed

    run(main())


def test_a_loop_that_does_not_use_its_selector_is_sent_a_heartbeat() -> None:
    uvloop = pytest.importorskip("uvloop")

    class Loop(uvloop.Loop):  # type: ignore[misc, name-defined]  # as that of Qt
        _selector = selectors.DefaultSelector()

    async def main() -> Probe:
        with Probe(threshold_ms=20) as probe:
            for _ in range(100):
                await asyncio.sleep(0.005)
            assert probe.lag_now_ms < 20
            block(0.05)
            await settle()
        return probe

    def good(probe: Probe) -> bool:
        return {block_line()} == {line_of(stall) for stall in probe.stalls}

    found = unless_busy(lambda: run(main(), Loop), good)
    assert good(found), found.stalls
    assert "select" not in vars(Loop._selector)
    assert found.summary()["busy"] is None
    assert 0 < found.summary()["busy_at_least"] < 0.5


def test_a_probe_is_entered_by_one_of_several_threads_at_once() -> None:
    probe, together = Probe(), threading.Barrier(4)
    outcomes: list[str] = []

    async def enter() -> None:
        together.wait()
        try:
            with probe:
                outcomes.append("entered")
                await asyncio.to_thread(together.wait)
        except LabError:
            outcomes.append("refused")
            await asyncio.to_thread(together.wait)

    threads = [threading.Thread(target=run, args=[enter()]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ["entered", "refused", "refused", "refused"] == sorted(outcomes)
    assert "labkit-probe" not in {thread.name for thread in threading.enumerate()}


def test_a_loop_that_does_not_run_is_not_busy() -> None:
    async def enter(probe: Probe) -> None:
        probe.__enter__()

    probe = Probe(threshold_ms=20)
    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(enter(probe))
        for _ in range(3):
            time.sleep(0.2)
            assert 0 == probe.lag_now_ms
            runner.run(asyncio.sleep(0.01))
        probe.__exit__()
    probe.__exit__()  # a second time, it does nothing
    figures = probe.summary()
    assert figures["busy"] < 0.4
    assert 0.6 < figures["seconds"]
    assert figures == probe.summary()


def test_what_was_never_measured_is_not_known() -> None:
    probe = Probe()
    probe.__exit__()
    known = {key for key, value in probe.summary().items() if value not in (None, [])}
    assert {"threshold_ms", "seconds"} == known


def test_a_loop_takes_one_probe_at_a_time_and_a_probe_one_loop() -> None:
    async def enter(probe: Probe) -> None:
        with probe:
            pass

    async def main() -> list[Stall]:
        with Probe(threshold_ms=10) as first:
            with pytest.raises(LabError, match="loop is watched by a probe already"), Probe():
                pass
            with pytest.raises(LabError, match="probe watches a loop already"):
                await asyncio.to_thread(asyncio.run, enter(first))
            block(0.03)
            await settle()
        with Probe():
            pass
        return first.stalls

    assert block_line() in {line_of(stall) for stall in run(main())}


def test_where_no_thread_can_be_started_it_says_so_and_can_be_entered_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("daemon threads are disabled in this (sub)interpreter")

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(LabError, match="thread cannot be started: daemon threads"), Probe():
                pass
        with Probe():
            pass

    asyncio.run(main())


def test_without_a_running_loop_it_says_where_to_enter_it() -> None:
    with (
        pytest.raises(LabError, match=r"no asyncio loop runs. Enter it inside"),
        Probe(),
    ):
        pass


@pytest.mark.parametrize("threshold_ms", [0.9, 0, -1, math.nan, math.inf])
def test_a_threshold_that_is_none_is_refused(threshold_ms: float) -> None:
    with pytest.raises(LabError, match=rf"threshold_ms is {threshold_ms}; expected 1 or more"):
        Probe(threshold_ms)


# When the probe itself fails.


def test_a_failing_sampler_is_switched_off_and_the_body_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Sampler, "_look", fail)
    _, stall = run(blocked_for(0.03))
    assert stall.duration_ms >= 30
    assert (stall.frame, stall.samples) == (None, 0)
    assert str(stall).endswith(" ms, unknown")
    assert wait_for_record(caplog, "the probe's sampler failed and is switched off").exc_info


def test_a_failing_verdict_does_not_fail_the_body(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    async def main() -> Probe:
        with Probe(threshold_ms=10) as watching:
            for _ in range(2):
                await settle()
                block(0.03)
            await settle()
        return watching

    monkeypatch.setattr(looks, "judge", fail)
    assert [] == run(main()).stalls
    assert wait_for_record(caplog, "the probe's sampler failed and is switched off").exc_info


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no such alarm")
def test_a_wait_that_a_signals_handler_breaks_off_was_no_work() -> None:
    def raises(*_: object) -> None:
        raise TimeoutError

    async def begin(watching: Probe) -> None:
        watching.__enter__()

    async def end(watching: Probe) -> None:
        watching.__exit__(None, None, None)

    watching, before = Probe(threshold_ms=50), signal.signal(signal.SIGALRM, raises)
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(begin(watching))
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(TimeoutError):
                runner.get_loop().run_forever()
            runner.run(end(watching))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert watching.summary()["busy"] < 0.5


def test_a_probe_can_be_entered_again_on_another_loop() -> None:
    probe = Probe(threshold_ms=10)

    async def main() -> int:
        with probe:
            await settle()
            block(0.05)
            await settle()
        return len(probe.stalls)

    assert run(main()) == 1
    assert run(main()) == 2
    first, second = (stall.start_s for stall in probe.stalls)
    assert first < second  # it goes on counting


def test_a_loop_that_waits_for_a_socket_only_is_watched_too() -> None:
    async def main() -> list[Stall]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)

        def hog() -> None:
            theirs.send(b"!")
            for _ in range(5):  # one such call can be over before anybody can look
                json.dumps([1] * 3_000_000)

        with ours, theirs, Probe(threshold_ms=25) as probe:
            thread = threading.Thread(target=hog, name="hog")
            asyncio.get_running_loop().call_soon(thread.start)
            await asyncio.get_running_loop().sock_recv(ours, 1)
            while thread.is_alive():
                await asyncio.sleep(0.001)
        return probe.stalls

    def starved(stalls: list[Stall]) -> bool:
        return "starved by another thread" in {stall.cause for stall in stalls}

    # "unknown" is an honest answer: the thread may have ended before anybody could look.
    assert any(starved(run(main())) for _ in range(8))


def test_after_leaving_there_is_no_lag() -> None:
    async def main() -> Probe:
        with Probe(threshold_ms=10) as probe:
            await settle()
        return probe

    assert run(main()).lag_now_ms == 0
    assert Probe().lag_now_ms == 0


def test_generated_code_is_nobodys_line() -> None:
    @dataclass
    class Row:
        at: Stack = field(default_factory=lambda: walk(sys._getframe(1)))

    stack = Row().at
    assert ("__init__", False) == (stack[-1].function, is_users(stack[-1]))
    assert users_frame(stack) == stack[-2]
    assert users_frame(stack[-1:]) == stack[-1]


def test_a_users_file_is_not_taken_for_the_librarys_by_its_name() -> None:
    assert users_frame((Frame("socket.py", 3, "hog"),)) == Frame("socket.py", 3, "hog")


SERVICE = """
import asyncio, time
import labkit

async def main():
    with labkit.Probe(threshold_ms=20) as probe:
        asyncio.get_running_loop().call_soon(time.sleep, 0.1)  # no line of this file's
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.1)
        await asyncio.sleep(0)
    for stall in probe.stalls:
        print(stall.frame and stall.frame.function, stall.duration_ms > 90)

asyncio.run(main())
"""


def test_who_called_the_loop_is_never_blamed(tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    service.write_text(SERVICE)
    done = subprocess.run([sys.executable, service], capture_output=True, text=True)
    assert done.stdout.split() == ["None", "True", "main", "True"], done


# A look at a thread whose frames come and go, while each object made may start a collection, in
# which Python code lets the thread run on. In Python 3.11 that crashed the interpreter.
LOOKS = """
import gc, json, random, sys, threading, time
from labkit.probe.frames import no_collection, walk
from labkit.probe.origin import place_in_thread

gc.callbacks.append(lambda phase, info: time.sleep(0))
gc.set_threshold(20)
going, functions, old = True, [], []
for size in range(1, 12):  # frames of different sizes
    local = "; ".join(f"v{i} = bytes(300_000)" for i in range(size))
    then = f"return functions[(n * 7 + {size}) % len(functions)](n - 1) if n else [[], [], []]"
    exec(compile(f"def function(n):\\n {local}\\n {then}", json.__file__, "exec"))
    functions.append(function)

def work():
    while going:
        random.choice(functions)(random.randrange(5, 60))

def stack():
    return walk(sys._current_frames()[thread.ident])

def locals_too():  # they are read of threads that are in a library's code
    if len(old) > 20:
        old.clear()
    old.append([{} for _ in range(100)])  # so that a new dict is no old one that was kept
    with no_collection():
        return place_in_thread(sys._current_frames()[thread.ident], "x").stack

work.__code__ = work.__code__.replace(co_filename=json.__file__)
thread = threading.Thread(target=work)
thread.start()
end = time.monotonic() + 3
try:
    while time.monotonic() < end:
        deepest = len(LOOK())
        assert deepest < 500, deepest
finally:
    going = False
thread.join()
print("survived", gc.isenabled())
"""


@pytest.mark.parametrize("look", ["stack", "locals_too"])
def test_a_look_survives_the_collections_that_it_starts(look: str) -> None:
    # It hangs at the end or crashes at once where it fails.
    program = LOOKS.replace("LOOK", look)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (0, "survived True\n") == (done.returncode, done.stdout), done.stderr
