import random
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import IPython.display
import numpy as np
import pandas as pd
import pytest

from labkit import (
    Frame,
    LabError,
    Machine,
    Run,
    Stall,
    above,
    at_most,
    exactly,
    lower,
    none,
    similar,
    verify,
)
from labkit.measure.claims import Claim
from labkit.measure.load import Request, Span
from labkit.measure.run import DEBUG
from labkit.measure.work import table_of


def lookups(*latencies_ms: float) -> list[Request]:
    """Lookups with these latencies, one every 10 ms."""
    return [
        Request("lookup", i / 100, i / 100, i / 100 + latency / 1e3, None)
        for i, latency in enumerate(latencies_ms)
    ]


def a_run(
    *latencies_ms: float,
    requests: Sequence[Request] = (),
    readings: Sequence[dict[str, float]] = (),
    noise_ms: float = 0.0,
    pauses: Sequence[tuple[float, float]] = (),
    idle: float = 1.0,
    **more: Any,
) -> Run:
    """A run of lookups with these latencies, or of these requests, on a machine that is so late.

    One latency alone is that of 300 lookups.
    """
    latencies_ms = latencies_ms * 300 if len(latencies_ms) == 1 else latencies_ms
    requests = requests or lookups(*latencies_ms)
    fields: dict[str, Any] = {
        "name": "a run",
        "offers": tuple(dict.fromkeys(["lookup", *(request.offer for request in requests)])),
        "seconds": len(latencies_ms) / 100,
        "invalid": "",
        "stalls": (),
        "warnings": (),
        "requests": table_of([*requests]),
        "spans": pd.DataFrame(columns=Span._fields),
        "gauges": pd.DataFrame(list(readings) or {"at_s": []}).set_index("at_s"),
        "lag": pd.DataFrame(columns=["at_s", "lag_ms"]),
        "machine": Machine([noise_ms], [*pauses], idle),
    }
    return Run(**fields | more)


class Notebook:
    """Stands for a Jupyter kernel, and keeps what is displayed there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[tuple[dict[str, Any], dict[str, Any]]] = []
        compiler = SimpleNamespace(format_code_name=lambda file: None)
        shell = SimpleNamespace(kernel=True, compile=compiler)
        monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
        monkeypatch.setattr(IPython.display, "display", self._display)

    def _display(self, bundle: dict[str, Any], *, raw: bool, metadata: dict[str, Any]) -> None:
        assert raw
        self.shown.append((bundle, metadata))


def claim(times: float, before: Any, after: Any) -> Claim:
    return lower("p99 is lower", times, before, after)


def held(times: float, before: Any, after: Any) -> bool | None:
    return claim(times, before, after).held


THREE = [a_run(100)] * 3

# So many times lower, higher, or alike.


def test_a_claim_holds_where_three_pairs_reach_it() -> None:
    assert claim(20, THREE, [a_run(2)] * 3) == Claim(
        "p99 is lower", True, "50× (median of 3 pairs, 50× to 50×), 100 ms → 2.0 ms"
    )


def test_a_claim_is_broken_where_they_all_fall_short() -> None:
    found = claim(20, THREE, [a_run(8), a_run(10), a_run(9)])
    assert (found.held, found.why) == (False, "")
    assert held(20, THREE, [a_run(4), a_run(10), a_run(9)]) is None  # one of them did reach it


@pytest.mark.parametrize(
    ("ratio", "pairs", "expected"),
    [
        (19, 3, False),
        (21, 3, True),
        (21, 2, None),
        (23, 2, True),
        (23, 1, None),
        (26, 1, True),
        (17, 1, None),
        (15, 1, False),
    ],
)
def test_fewer_pairs_than_three_carry_less(ratio: int, pairs: int, expected: bool | None) -> None:
    assert held(20, [a_run(ratio * 10.0)] * pairs, [a_run(10)] * pairs) is expected


@pytest.mark.parametrize(
    ("noise_before", "noise_after", "expected"),
    [
        (0, 0, True),  # 4.9 / 0.2 = 24.5
        (0.44, 0, True),  # at least (4.9 - 2 * 0.44) / 0.2 = 20.1
        (0.46, 0, None),  # 3.98 / 0.2 = 19.9
        (0, 0.09, True),  # lateness afterwards can only have made it longer: at least 4.9 / 0.2
    ],
)
def test_what_lateness_can_have_added_before_is_taken_off(
    noise_before: float, noise_after: float, expected: bool | None
) -> None:
    before, after = a_run(4.9, noise_ms=noise_before), a_run(0.2, noise_ms=noise_after)
    assert held(20, [before] * 3, [after] * 3) is expected


@pytest.mark.parametrize(
    ("noise_after", "expected"),
    [
        (0, False),  # 10 / 1 = 10
        (0.24, False),  # at most 10 / (1 - 2 * 0.24) = 19.2
        (0.26, None),  # 10 / 0.48 = 20.8
        (0.6, None),  # it may be nothing at all
    ],
)
def test_what_lateness_can_have_added_after_is_taken_off(
    noise_after: float, expected: bool | None
) -> None:
    assert held(20, [a_run(10)] * 3, [a_run(1, noise_ms=noise_after)] * 3) is expected


@pytest.mark.parametrize("pause", [0.05, 0.3, 0.5])
def test_what_one_pause_of_the_machine_did_is_neither_held_nor_broken(pause: float) -> None:
    quick, paused_ms = [1.0] * 300, [1.0] * 300
    for i in range(round(pause * 100)):
        paused_ms[100 + i] = 1e3 * pause - 10 * i
    paused = a_run(*paused_ms, pauses=[(1.0, 1.0 + pause)])
    quiet = a_run(*quick)
    assert paused.latency().p99 > 20 * quiet.latency().p99
    assert [held(20, [paused] * n, [quiet] * n) for n in (1, 2, 3)] == [None] * 3
    assert held(20, [a_run(*[100.0] * 300)] * 3, [paused] * 3) is None  # it may well be 100 times
    # What reaches the claim without the requests that met the pause, holds.
    assert held(20, [a_run(*[100.0] * 300, pauses=[(1.0, 1.3)])] * 3, [quiet] * 3) is True
    assert held(400, [a_run(*[100.0] * 300)] * 3, [paused] * 3) is False


def test_what_a_pause_left_waiting_is_its_doing_until_the_queue_has_gone() -> None:
    waiting = [max(1.0, 400 - 4 * i) for i in range(200)]  # for one second after a pause of 0.4 s
    paused = a_run(*[1.0] * 100, *waiting, *[1.0] * 100, pauses=[(1.0, 1.4)])
    quiet = a_run(*[1.0] * 400)
    assert paused.undisturbed.latency().max < 5
    assert held(2, [paused] * 3, [quiet] * 3) is None
    assert held(20, [a_run(*[100.0] * 400)] * 3, [paused] * 3) is None
    to_the_end = a_run(*[1.0] * 100, *waiting[:90], pauses=[(1.0, 1.4)])
    assert len(to_the_end.undisturbed.requests) == 100


@pytest.mark.parametrize("earlier", [[], [30.0], [30.0] * 5])  # a service is slow at first
def test_what_is_usual_is_not_learnt_from_a_queue_or_from_a_few(earlier: list[float]) -> None:
    queue = [500.0 - 4 * i for i in range(110)]  # to its end, it waits for what a pause left
    begin = len(earlier) / 100 + 0.04
    paused = a_run(*earlier, *queue, pauses=[(begin, begin + 0.5)])
    assert [held(2, [paused] * n, [a_run(*[3.0] * 110)] * n) for n in (1, 2, 3)] == [None] * 3
    gone = a_run(*earlier, *queue, *[3.0] * 300, pauses=[(begin, begin + 0.5)])
    assert len(earlier) == len(gone.undisturbed.requests)


def test_a_queue_of_another_offer_or_of_a_part_outlives_the_pause_too() -> None:
    def waits(at: float, paused: bool) -> float:  # until 2.4 s, for what a pause of 0.4 s left
        return max(0.0, 700 - 500 * (at - 1)) if paused and at >= 1 else 0.0

    def reporting(paused: bool) -> Run:
        times = [i / 40 for i in range(120)]
        reports = [Request("report", t, t, t + (90 + waits(t, paused)) / 1e3, None) for t in times]
        pauses = [(1.0, 1.4)] * paused
        return a_run(requests=[*lookups(*[1.0] * 300), *reports], seconds=3.0, pauses=pauses)

    def cached(paused: bool) -> Run:  # every third finds its answer in a cache
        times = [0.3 if i % 3 == 0 else 5 + waits(i / 100, paused) for i in range(300)]
        return a_run(*times, pauses=[(1.0, 1.4)] * paused)

    for pairs in (1, 2, 3):
        reports = [reporting(True)] * pairs, [reporting(False)] * pairs
        assert lower("reports", 2, *reports, offer="report").held is None
        assert held(2, [cached(True)] * pairs, [cached(False)] * pairs) is None


def test_the_queue_of_a_rare_offer_outlives_the_pause_and_nobody_can_tell() -> None:
    def reporting(paused: bool) -> Run:  # six before the pause, and a queue until the end
        times = [i / 6 for i in range(18)]
        reports = [
            Request("report", at, at, at + (0.9 if paused and at >= 1 else 0.09), None)
            for at in times
        ]
        pauses = [(1.0, 1.4)] * paused
        return a_run(requests=[*lookups(*[1.0] * 300), *reports], seconds=3.0, pauses=pauses)

    for pairs in (1, 3):
        reports = [reporting(True)] * pairs, [reporting(False)] * pairs
        assert lower("reports", 2, *reports, offer="report").held is None
    assert 6 == (reporting(True).undisturbed.requests.offer == "report").sum()


def test_who_fails_after_a_pause_does_not_serve_as_before() -> None:
    broken = [
        Request("lookup", i / 100, i / 100, i / 100 + 0.0005, "Open") for i in range(100, 300)
    ]
    run = a_run(requests=[*lookups(*[1.0] * 100), *broken], seconds=3.0, pauses=[(1.0, 1.2)])
    assert none("no request failed", lambda run: run.failed(), run).held is None


def test_a_pause_before_the_load_hides_nothing_of_what_was_usual() -> None:
    queue = [500.0 - 4 * i for i in range(110)]
    pauses = [(-0.2, -0.1), (0.24, 0.74)]
    run = a_run(*[3.0] * 20, *queue, *[3.0] * 60, pauses=pauses)
    assert 80 == len(run.undisturbed.requests)
    assert 20 == len(a_run(*[3.0] * 20, pauses=pauses[:1]).undisturbed.requests)


def test_two_pauses_may_share_the_queue_that_they_left() -> None:
    times = [*[1.0] * 20, *[300.0] * 60, *[1.0] * 200]
    run = a_run(*times, pauses=[(0.2, 0.25), (0.4, 0.45)], readings=[{"at_s": 0.0, "idle": 1.0}])
    assert 220 == len(run.undisturbed.requests)


@pytest.mark.parametrize("pairs", [1, 3])
def test_a_pause_and_a_moment_together_are_no_effect_either(pairs: int) -> None:
    slow = [100.0 if 250 <= i < 265 else 300.0 - 10 * (i - 100) if 100 <= i < 130 else 1.0
            for i in range(400)]  # fmt: skip
    paused = a_run(*slow, pauses=[(1.0, 1.3)])
    assert held(5, [paused] * pairs, [a_run(*[1.0] * 400)] * pairs) is None


def test_one_moment_is_no_effect_and_breaks_none_in_a_single_pair() -> None:
    quiet, slow = [1.0] * 400, [100.0] * 400
    for start in range(100, 135, 7):  # each place in a window of five
        shortly, long = quiet.copy(), quiet.copy()
        shortly[start : start + 30] = [300.0 - 10 * i for i in range(30)]
        long[start : start + 100] = [1000.0 - 10 * i for i in range(100)]
        found = claim(5, a_run(*shortly), a_run(*quiet))
        assert found.held is None
        assert found.why.startswith("a few requests, or a single moment, may have made")
        assert held(5, [a_run(*shortly), *[a_run(*quiet)] * 2], [a_run(*quiet)] * 3) is not True
        assert held(5, a_run(*long), a_run(*quiet)) is True
        assert held(5, a_run(*slow), a_run(*shortly)) is None
    often = [40.0 if i % 100 < 15 else 1.0 for i in range(400)]
    assert held(5, a_run(*often), a_run(*quiet)) is True


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_what_a_few_requests_met_by_chance_is_no_effect(pairs: int) -> None:
    def some_slow(count: int) -> Run:
        slow = set(random.Random(3).sample(range(400), count))
        return a_run(*[100.0 if i in slow else 1.0 for i in range(400)])

    assert some_slow(5).latency().p99 == pytest.approx(100)
    assert held(5, [some_slow(5)] * pairs, [some_slow(3)] * pairs) is None
    assert held(5, [some_slow(40)] * pairs, [some_slow(0)] * pairs) is True
    cold = a_run(300, *[1.0] * 49)  # the first one of few imports something
    assert held(5, [cold] * pairs, [a_run(*[1.0] * 50)] * pairs) is None


@pytest.mark.parametrize("pairs", [1, 2, 3])
def test_what_chance_does_to_spans_stalls_and_gauges_is_no_effect(pairs: int) -> None:
    def acquired(slow: int) -> Run:
        spans = [Span(i, "acquire", i / 100, 90.0 if i % 97 < slow else 1.0) for i in range(400)]
        return replace(a_run(*[1.0] * 400), spans=pd.DataFrame(spans))

    def p99(run: Run) -> float:
        return float(run.spans.span_ms.quantile(0.99))

    assert p99(acquired(1)) > 5 * p99(acquired(0))
    assert lower("acquire", 5, [acquired(1)] * pairs, [acquired(0)] * pairs, p99).held is None
    assert lower("acquire", 5, [acquired(20)] * pairs, [acquired(0)] * pairs, p99).held is True

    def holding(*at: float) -> Run:
        readings = [{"at_s": i / 50, "idle": 0.0 if i / 50 in at else 5.0} for i in range(200)]
        return a_run(*[1.0] * 400, stalls=stalls(*at), readings=readings)

    def nothing_idle(run: Run) -> float:
        return run.share_of_time("idle", lambda idle: idle == 0)

    once, twice, never = ([holding(*at)] * pairs for at in ((0.5,), (0.5, 2.5), ()))
    assert lower("seldom", 2, once, never, nothing_idle).held is None
    assert lower("seldom", 2, twice, never, nothing_idle).held is True


@pytest.mark.parametrize(
    ("times", "before", "after", "expected"),
    [
        (2, [2], [0], None),
        (2, [4, 3, 2], [1, 0, 1], None),
        (2, [12], [0], True),
        (2, [4, 5, 4], [0, 0, 1], True),
        (2, [3], [4], None),
        (2, [12], [14], False),
        (20, [400], [100], False),
    ],
)
def test_a_count_that_chance_may_have_made_less_is_not_lower(
    times: float, before: list[int], after: list[int], expected: bool | None
) -> None:
    def some(counts: list[int]) -> list[Run]:
        at = np.linspace(0.0, 3.9, 401)
        return [a_run(*[1.0] * 400, stalls=stalls(*at[:: 401 // (n or 1)][:n])) for n in counts]

    claimed = lower("fewer", times, some(before), some(after), lambda run: len(run.stalls))
    assert expected is claimed.held, claimed


def test_lateness_counts_by_the_time_that_it_lasts() -> None:
    stopped = Machine([0.1] * 294 + [18.0] * 6)  # six times in a second, 18 ms
    # What comes at any time meets it: of 500 in a second, nine come within 18 ms.
    slow = [1.0 + (18 - 2 * j if j < 9 else 0) for _ in range(6) for j in range(83)]
    run = a_run(*slow, machine=stopped)
    assert 18.0 == stopped.late_in(np.array([0.95]))
    assert (
        above("the slowest takes more than 5 ms", 5, lambda run: run.latency().max, run).held
        is None
    )
    assert above("p99 is above 2.5 ms", 2.5, lambda run: run.latency().p99, run).held is None
    assert (
        lower("so was it before", 2, run, a_run(*[1.0] * 498), lambda r: r.latency().max).held
        is None
    )


def test_where_nothing_is_left_without_the_pause_nothing_is_claimed() -> None:
    paused = a_run(100, 90, pauses=[(0.0, 0.3)])
    assert held(20, [paused] * 3, [a_run(1)] * 3) is None
    assert held(200, THREE, [paused] * 3) is None
    assert len(paused.undisturbed.requests) == 0
    assert at_most("short", 50, lambda run: run.latency().p99, paused).held is None
    for impossible in (
        lambda run: run.requests.groupby("offer").latency_ms.mean()["lookup"],
        lambda run: run.requests.latency_ms.iloc[0],
        lambda run: 1 / len(run.requests),
        lambda run: max(run.requests.latency_ms),
        lambda run: len(next(run.requests.itertuples())),
        lambda run: float(np.float64(len(run.requests)) / len(run.requests)),
    ):
        assert at_most("short", 200, impossible, paused).held is None
        assert none("none", impossible, paused).held is None
        assert lower("fewer", 2, paused, paused, impossible).held is None
    # What was there in the calm ones was there, whatever is left of the other.
    seen = none("none", lambda run: int(run.requests.latency_ms.iloc[0] > 0), [*THREE, paused])
    assert seen.held is False
    with pytest.raises(KeyError):  # not for lack of requests: a mistake of the cell's own
        at_most("short", 200, lambda run: run.gauges["none"].max(), a_run(1))
    gauged = a_run(100, readings=[{"at_s": 0.1, "idle": 0.0}], pauses=[(0.0, 9.0)])
    assert at_most("rare", 0.5, lambda run: run.share_of_time("idle", bool), gauged).held is None


def test_what_a_gauge_said_while_the_machine_paused_is_not_weighed() -> None:
    def nothing_idle(run: Run) -> float:
        return run.share_of_time("idle", lambda idle: idle == 0)

    readings = [{"at_s": at, "idle": value} for at, value in ((0, 5.0), (1, 0.0), (1.3, 5.0))]
    paused = a_run(1.0, seconds=4.0, readings=readings, pauses=[(1.05, 1.25)])
    assert nothing_idle(paused) == pytest.approx(0.3 / 4)
    assert nothing_idle(paused.undisturbed) == pytest.approx(0.05 / 3.6)
    never = a_run(1.0, seconds=4.0, readings=[readings[0], {"at_s": 1.3, "idle": 0.0}])
    assert above("again and again nothing idle", 0.05, nothing_idle, paused).held is None
    assert above("again and again nothing idle", 0.05, nothing_idle, never).held is True


def test_where_no_processor_is_idle_times_prove_nothing() -> None:
    quick = [a_run(1)] * 3
    for machine in (Machine([0.1], [], idle=0.05), Machine([0.1] * 50 + [9.0], [], idle=0.5)):
        queued = [replace(a_run(100), machine=machine)] * 3
        assert (held(20, THREE, quick), held(20, queued, quick)) == (True, None)
        assert (held(200, THREE, quick), held(200, THREE, queued)) == (False, None)
        assert at_most("short", 50, lambda run: run.latency().p99, queued).held is None


@pytest.mark.parametrize("late", [[2.5] * 100, [0.1] * 80 + [1.2] * 80, [0.1] * 99 + [10.0]])
def test_where_the_machine_is_late_again_and_again_times_prove_nothing(late: list[float]) -> None:
    """As a neighbour makes it: a request of twenty round trips waits twenty times."""
    slow = [replace(a_run(70), machine=Machine(late))] * 3
    assert held(2, slow, [a_run(20)] * 3) is None
    assert held(4, [a_run(160)] * 3, slow) is None
    assert at_most("short", 50, lambda run: run.latency().p99, slow).held is None


def test_a_stall_that_lateness_can_have_made_long_enough_is_nobodys() -> None:
    run = a_run(1, stalls=stalls(0.1), threshold_ms=78.0, machine=Machine([0.1] * 300 + [3.0]))
    assert () == run.undisturbed.stalls  # it was one of 80 ms
    assert len(replace(run, threshold_ms=76.0).undisturbed.stalls) == 1
    fewer = lower("fewer stalls", 5, [run] * 3, [a_run(1)] * 3, stalled)
    assert fewer.held is None


def test_no_pair_may_contradict() -> None:
    assert held(20, THREE, [a_run(2), a_run(2), a_run(80)]) is None
    assert held(20, THREE, [a_run(2), a_run(2), a_run(20)]) is True


def test_few_requests_rule_no_effect_out() -> None:
    few, many = a_run(*[1.0] * 100), a_run(1.0)  # chance may have shown none of the slow ones
    assert (held(5, few, few), held(5, many, many)) == (None, False)
    assert held(5, [few] * 3, [few] * 3) is False


def failing(count: int, *latencies_ms: float) -> Run:
    failed = [Request("lookup", 0, 0, 0.001, "RuntimeError: down")] * count
    return a_run(requests=[*lookups(*latencies_ms), *failed])


def test_nothing_is_lower_where_more_requests_fail_than_before() -> None:
    found = claim(20, [a_run(50)] * 3, [failing(98, 1.0, 1.0)] * 3)
    assert found.held is False
    assert found.figure.endswith("; 294 of 300 failed, 0 of 900 before")
    assert held(20, [failing(98, 50)] * 3, [failing(98, *[1.0] * 70)] * 3) is not False
    assert held(20, [a_run(50)] * 3, [failing(30)] * 3) is False  # none was answered at all


def with_audits(lookup_ms: float, audits: int, failed: int) -> Run:
    audit = [Request("audit", i, i, i + 0.06, None) for i in range(audits)]
    down = [Request("audit", 0, 0, 0.001, "RuntimeError: down")] * failed
    return a_run(requests=[*lookups(*[lookup_ms] * 100), *audit, *down])


def test_whoever_fails_at_once_has_not_been_repaired() -> None:
    before, after = with_audits(50.0, 20, 0), with_audits(1.0, 0, 20)
    found = claim(10, [before] * 3, [after] * 3)
    assert (found.held, found.why) == (False, "")
    assert found.figure.endswith("; audit: 60 of 60 failed, 0 of 60 before")
    assert lower("the lookups'", 10, [before] * 3, [after] * 3, offer="lookup").held is True
    audits = lower("the audits'", 10, before, after, lambda run: run.latency("audit").p99)
    assert audits.held is not True


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((4, 200), (4, 12), False),
        ((2, 100), (6, 300), True),
        ((2, 100), (8, 100), None),  # not for sure
        ((0, 100), (1, 100), None),
        ((0, 100), (20, 100), False),
        ((20, 100), (0, 200), True),
        ((4, 100), (163, 3000), True),  # 120 are due, by a share that is not known better
    ],
)
def test_failures_are_compared_by_their_shares(
    before: tuple[int, int], after: tuple[int, int], expected: bool | None
) -> None:
    was, now = (
        failing(failed, *[latency] * (asked - failed))
        for latency, (failed, asked) in ((60.0, before), (1.0, after))
    )
    assert held(10, was, now) is expected


def test_a_p99_after_is_not_known_from_few_requests() -> None:
    few, enough = ([a_run(requests=lookups(*[1.0] * count))] * 3 for count in (66, 67))
    assert claim(20, THREE, few).why == "there were too few requests after to know their p99"
    assert held(20, THREE, enough) is True


def test_an_offer_that_is_not_there_has_no_failures_to_be_none() -> None:
    with pytest.raises(LabError, match=r"no offer 'lookups' in .*Expected one of: lookup"):
        none("no request failed", lambda run: run.failed("lookups"), a_run(1))


def test_there_is_no_ratio_to_a_figure_below_nothing() -> None:
    assert lower("it is lower", 2, -10, -3).held is None


def test_failures_of_a_pause_do_not_excuse_those_that_follow() -> None:
    gone = [Request("lookup", i / 100, i / 100, 2.6, "TimeoutError") for i in range(200, 260)]
    rest = [Request("lookup", i / 100, i / 100, i / 100 + 0.05, None) for i in range(400)]
    rest[200:260] = gone
    paused = a_run(requests=rest, seconds=4.0, pauses=[(2.0, 2.6)])
    after = failing(40, *[1.0] * 360)
    assert [held(10, [paused] * n, [after] * n) for n in (1, 3)] == [None, None]


def test_where_more_failed_before_the_others_rule_no_effect_out() -> None:
    timeouts, none_left = failing(20, *[10.0] * 380), a_run(*[10.0] * 400)
    assert held(10, timeouts, none_left) is None  # they waited, too, and nobody says how long


def test_the_same_offer_is_compared_on_both_sides() -> None:
    pings = [Request("ping", i / 10, i / 10, i / 10 + 0.001, None) for i in range(40)]
    before = a_run(requests=[*lookups(*[60.0] * 300), *pings])
    after = a_run(requests=[*pings, *lookups(*[60.0] * 100)], offers=("ping", "lookup"))
    assert held(10, before, after) is False
    with pytest.raises(LabError, match="There is no offer 'lookup'"):
        claim(10, before, a_run(requests=pings, offers=("ping",)))


def test_at_most_says_how_many_failed_and_is_inconclusive_where_all_did() -> None:
    def p99(run: Run) -> float:
        return run.latency().p99

    found = at_most("short", 40, p99, failing(9, 1.0), unit="ms")
    assert (found.held, found.figure) == (True, "1.0 ms; 9 of 10 failed")
    found = at_most("short", 40, p99, failing(9))
    assert (found.held, found.why) == (None, "there is no figure")


def test_runs_may_be_given_by_a_generator() -> None:
    paused = a_run(51, pauses=[(0.0, 0.3)])
    assert at_most("short", 50, lambda r: r.latency().p99, (it for it in [paused])).held is None
    assert none("no request", lambda r: r.requests, (it for it in [paused])).held is None
    assert exactly("none", 0, lambda r: len(r.requests), (it for it in [paused])).held is None


def test_what_is_refused_on_purpose_is_said_and_has_not_failed() -> None:
    others = [Request("report", 0, 0, 0.001, "ValueError: no such order")]
    refused = [Request("lookup", 0, 0, 0.001, "Overloaded: come back later")] * 7
    refusing = a_run(requests=[*lookups(*[1.0] * 70), *refused, *others])
    found = lower("it is lower", 20, THREE, [refusing] * 3, offer="lookup", refusal="Overloaded")
    assert found.held is True
    assert found.figure.endswith("; 21 refused")


def test_from_nothing_to_nothing_is_inconclusive_and_from_something_holds() -> None:
    def nothing(run: Run) -> float:
        return 0.0

    found = lower("the longest stall is shorter", 100, THREE, THREE, nothing)
    assert (found.held, found.why) == (None, "there is nothing to compare")
    befores, afters = [a_run(*[100.0] * 60)] * 3, [a_run(*[1.0] * 60)] * 3
    gone = lower("it is gone", 20, befores, afters, lambda run: run.latency().max > 50, unit="%")
    assert (gone.held, gone.figure) == (True, "∞× (median of 3 pairs, ∞× to ∞×), 100.0% → 0.0%")


@pytest.mark.parametrize("invalid", [DEBUG, "a tracer or a profiler was on"])
def test_times_under_debug_mode_or_a_tracer_prove_nothing(invalid: str) -> None:
    disturbed = a_run(1, invalid=invalid)
    for before, after in ((a_run(100, invalid=invalid), a_run(1)), (a_run(1), disturbed)):
        found = claim(20, [before] * 3, [after] * 3)
        assert found.held is None
        assert "so these times are not the service's" in found.why
    assert at_most("it is short", 50, lambda run: run.latency().p99, disturbed).held is None


@pytest.mark.parametrize("sides", [([], []), (THREE, THREE[:1]), (THREE, [])])
def test_each_run_needs_its_partner(sides: Any) -> None:
    with pytest.raises(LabError, match=r"cannot be compared. Expected as many of each"):
        claim(20, *sides)


def test_of_several_pairs_the_one_in_the_middle_is_shown() -> None:
    found = claim(40, [a_run(100), a_run(90), a_run(80)], [a_run(1), a_run(2), a_run(8)])
    assert (found.held, found.figure) == (
        True,
        "45× (median of 3 pairs, 10× to 100×), 90.0 ms → 2.0 ms",
    )


def test_plain_numbers_can_be_claimed_as_pairs() -> None:
    found = lower("it serves a third", 3, [96, 238, 235], [48, 48, 49], unit="per second")
    assert found.held is True
    assert found.figure == "4.8× (median of 3 pairs, 2.0× to 5.0×), 235 per second → 49 per second"
    assert lower("it serves a sixth", 6, [96, 238, 235], [48, 48, 49]).held is False
    assert lower("fewer", 2, 240, 100, unit="").held is None  # one pair
    assert lower("fewer", 2, 400, 100, unit="").held is True


@pytest.mark.parametrize(
    ("after", "expected"), [(100, True), (190, True), (60, True), (210, False), (40, False)]
)
def test_alike_is_within_so_many_times_up_or_down(after: float, expected: bool | None) -> None:
    assert similar("it is as it was", 2, THREE, [a_run(after)] * 3).held is expected


def test_alike_is_inconclusive_where_lateness_is_as_much_as_the_figure() -> None:
    late = [a_run(1.0, noise_ms=2.0)] * 3
    assert similar("it is as it was", 2, late, late).held is None


# Counts, lists and limits.


def stalled(run: Run) -> int:
    return len(run.stalls)


FRAME = Frame("/somewhere/legacy.py", 12, "load_report")


def stalls(*starts: float) -> tuple[Stall, ...]:
    return tuple(Stall(at, 80, "blocked", FRAME, (FRAME,), 3, False, 1, None) for at in starts)


def test_alike_shows_how_many_times_what_it_was_it_is() -> None:
    assert similar("it is as it was", 3, [100.0] * 3, [50.0] * 3).figure.startswith("0.5×")


def test_exactly_is_equal_or_broken() -> None:
    assert exactly("nine of nine", 9, 9) == Claim("nine of nine", True, "9 of 9")
    assert exactly("nine of nine", 9, 8) == Claim("nine of nine", False, "8 of 9")
    assert exactly("in one query", ["query"], ["query"]).held is True
    assert exactly("it is so", True, np.bool_(True)) == Claim("it is so", True, "True")
    assert exactly("nine of nine", 9, np.int64(8)).figure == "8 of 9"
    assert exactly("nine of nine", 9, None) == Claim("nine of nine", False, "None")
    more, some = cast(Any, np.array([400, 100]))
    assert lower("fewer", 2, more, some, unit="").held is True
    twice = [a_run(1, stalls=stalls(0.1, 0.5))] * 2
    assert exactly("four of four", 4, stalled, twice) == Claim("four of four", True, "4 of 4")
    assert exactly("each", lambda run: 2, stalled, twice).held is True


@pytest.mark.parametrize(
    "machine",
    [
        Machine([0.1], [(0.2, 0.25)]),
        Machine([0.1], idle=0.02),
        Machine([0.1] * 100 + [9.0]),
    ],
)
def test_what_is_missed_while_the_machine_is_in_trouble_is_inconclusive(machine: Machine) -> None:
    found = exactly("nine of nine", 9, 8, machine)
    assert (found.held, found.why) == (None, machine.trouble)
    assert exactly("nine of nine", 9, 9, machine).held is True
    assert none("nothing is left", 1, machine).held is None
    assert at_most("few", 4, 5, machine).held is None
    assert exactly("nine of nine", 9, 8, [a_run(1), a_run(1, machine=machine)]).held is None


def test_two_functions_are_to_agree_in_each_run() -> None:
    audits, stalled = (lambda run: 1), (lambda run: len(run.stalls))
    twice, never = a_run(1, stalls=stalls(0.1, 0.2)), a_run(1)
    found = exactly("one each", audits, stalled, [twice, never])
    assert (found.held, found.figure) == (False, "[2, 0] of [1, 1]")
    assert exactly("two in all", 2, stalled, [twice, never]).held is True


def test_what_is_there_under_other_trouble_than_pauses_may_be_its_doing() -> None:
    stalled = a_run(1, stalls=stalls(0.1), idle=0.02)  # it computed 30 ms, and queued for as long
    assert none("no stall", lambda run: run.stalls, [stalled] * 3).held is None
    late = replace(stalled, machine=Machine([0.1] * 300 + [6.0]))
    assert none("no stall", lambda run: run.stalls, [late] * 3).held is None


def test_none_takes_a_count_a_collection_or_a_function_of_a_run() -> None:
    assert none("no finding", []) == Claim("no finding", True, "0")
    assert none("no finding", ["ASYNC101"]) == Claim("no finding", False, "1")
    assert none("no stall", lambda run: run.stalls, [a_run(1), a_run(1)]).held is True
    sick = a_run(1, stalls=stalls(0.1, 0.5))
    assert none("no stall", lambda run: run.stalls, [a_run(1), sick]).held is False
    # A stall that met a pause may be the pause; one that did not is there, whatever else was.
    paused = [(0.08, 0.18)]
    assert none("no stall", stalled, a_run(1, 1, stalls=stalls(0.1), pauses=paused)).held is None
    both = a_run(1, 1, stalls=stalls(0.1, 0.5, 0.7), pauses=paused)
    assert none("no stall", stalled, both).held is False


def test_limits_hold_in_each_run_and_at_both_ends() -> None:
    def p99(run: Run) -> float:
        return run.latency().p99

    assert at_most("short", 50, p99, [a_run(40), a_run(49)], unit="ms").figure == "49.0 ms"
    assert at_most("short", 50, p99, [a_run(40), a_run(49)]).held is True
    assert at_most("short", 50, p99, [a_run(40), a_run(51)]).held is False
    assert at_most("short", 50, p99, [a_run(40), a_run(51, noise_ms=2)]).held is None
    assert above("long", 50, p99, [a_run(51), a_run(60)]).held is True
    assert above("long", 50, p99, [a_run(51, noise_ms=2), a_run(60)]).held is None
    assert above("long", 50, p99, [a_run(49), a_run(60)]).held is False
    assert above("most of it", 0.7, 0.94, unit="%") == Claim("most of it", True, "94.0%")


def test_a_function_of_a_run_needs_a_run() -> None:
    with pytest.raises(LabError, match="no run was given"):
        none("no stall", stalled)


# Shown.

CLAIMS = (
    Claim("p99 is <20 times> smaller", True, "50×"),
    Claim("one connection is opened", False, "7 connections"),
    Claim("it is quicker", None, "1.1×", "the machine paused, for up to 300 ms"),
)
VERDICTS = """\
✔ held: p99 is <20 times> smaller (50×)
✘ broken: one connection is opened (7 connections)
? inconclusive: it is quicker (1.1×; the machine paused, for up to 300 ms: run it again)
"""


def test_claims_are_printed_with_verdict_and_figure(capsys: pytest.CaptureFixture[str]) -> None:
    verify(*CLAIMS)
    assert capsys.readouterr().out == VERDICTS


def test_in_a_notebook_claims_are_a_table_and_data_for_the_scoreboard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = Notebook(monkeypatch)
    verify(*CLAIMS)
    [(bundle, metadata)] = notebook.shown
    assert bundle["text/plain"] == VERDICTS.strip()
    assert bundle["text/html"].count("<tr>") == 4
    assert "p99 is &lt;20 times&gt; smaller" in bundle["text/html"]
    assert metadata == {
        "labkit": {
            "claims": [
                {"claim": c.claim, "held": c.held, "figure": c.figure, "why": c.why} for c in CLAIMS
            ]
        }
    }
    assert capsys.readouterr().out == ""
