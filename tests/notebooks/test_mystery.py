"""The mystery service: every case is fair, can be solved by evidence alone, and leaves nothing."""

from __future__ import annotations

import asyncio
import inspect
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import psycopg2
import pytest
from mystery.case import Case, Finding

import labkit as lab
from labkit import LabError
from labkit.exercises import notebooks
from labkit.server import Dsn
from labkit.server.dataset import CONTENT, CONTENT_QUERY
from tests.notebooks.fifty_cases import SEEDS, blamed, hoarder, solve
from tests.stalls import unless_busy


@pytest.fixture(scope="module", autouse=True)
def deck() -> Any:
    import mystery.deck

    return mystery.deck


# Every card is in one of these cases, and the other 45 are solved by `fifty_cases`, in two minutes.
FEW = (0, 4, 14, 18, 24)
each_of_few = pytest.mark.parametrize("seed", FEW)


def test_the_few_cases_have_every_culprit_and_every_decoy(deck: Any) -> None:
    dealt = {part.card.name for seed in FEW for part in deck.deal(seed)}
    assert {card.name for card in deck.BLOCKERS + deck.DECOYS} == dealt


@pytest.fixture(scope="module")
def solved(dsn: Dsn) -> Callable[[int], tuple[Case, list[str]]]:
    """Solves each of the few cases once, for several tests."""

    def good(outcome: tuple[Case, list[str]]) -> bool:
        return "is solved" in outcome[0].score and not outcome[1]

    return cache(lambda seed: unless_busy(lambda: solve(seed, dsn), good))


@each_of_few
def test_a_case_is_solved_by_what_the_probe_and_the_gauges_say(
    seed: int, solved: Callable[[int], tuple[Case, list[str]]]
) -> None:
    case, wrong = solved(seed)
    assert "is solved" in case.score
    assert wrong == []


@each_of_few
def test_repaired_no_culprit_holds_up_anybody(
    seed: int, solved: Callable[[int], tuple[Case, list[str]]]
) -> None:
    case, _ = solved(seed)

    def repaired() -> tuple[list[str], list[str], int]:
        run = lab.measure(case.repaired, threshold_ms=25)
        return blamed([run], case.functions), hoarder([run]), run.failed()

    found = unless_busy(repaired, lambda found: found == ([], [], 0), quiet=True)
    assert found == ([], [], 0)


# What is dealt.


def culprits(deck: Any, seed: int) -> list[Any]:
    return [part for part in deck.deal(seed) if part.card.holds]


def test_a_case_has_three_culprits_of_different_kinds_in_different_modules(deck: Any) -> None:
    for seed in SEEDS:
        found = culprits(deck, seed)
        assert len({part.card.name for part in found}) == 3
        assert len({part.name.partition(".")[0] for part in found}) == 3
        assert len({part.name.partition(".")[0] for part in deck.deal(seed)}) == 6
        assert len({part.rate for part in found}) == 3


def test_a_seed_is_a_case_and_another_seed_is_another(deck: Any) -> None:
    assert deck.deal(7) == deck.deal(7)
    assert len({str(culprits(deck, seed)) for seed in SEEDS}) == len(SEEDS)


def test_culprits_of_the_loop_never_come_together(deck: Any) -> None:
    for rates in deck.RATES:
        arrivals = [[(k + 0.5) / rate for k in range(round(rate * 2.5))] for rate in rates]
        assert min(map(len, arrivals)) >= 2
        pairs = [(a, b) for a in arrivals for b in arrivals if a is not b]
        assert min(abs(x - y) for a, b in pairs for x in a for y in b) > 0.079


# What is written.


def test_the_modules_can_be_read_though_they_are_in_no_file(tmp_path: Path) -> None:
    case = Case(3, "no server")
    for name in case.functions:
        module, _, function = name.partition(".")
        source = inspect.getsource(getattr(case.modules[module], function))
        assert f"def {function}(" in source
        assert source in inspect.getsource(case.modules[module])
        assert not Path(case.modules[module].__file__ or "").exists()
    assert not list((notebooks() / "mystery").glob("case_*"))


def test_no_source_tells_what_it_is_in_the_deck(deck: Any) -> None:
    for seed in SEEDS:
        case = Case(seed, "no server")
        text = "".join(inspect.getsource(module) for module in case.modules.values())
        assert not [card.name for card in deck.BLOCKERS + deck.DECOYS if card.name in text.split()]


async def before_and_after(dsn: str, names: list[str]) -> list[tuple[Any, Any]]:
    from mystery import blockers, repairs, service

    async with service.open_service(dsn, sessions=10) as opened:
        decks = blockers, repairs
        return [tuple([await getattr(deck, name)(opened) for deck in decks]) for name in names]


def test_a_repaired_culprit_returns_what_it_returned_before(deck: Any, dsn: Dsn) -> None:
    # garbage_collection subtracts what it happened to find
    names = [card.name for card in deck.BLOCKERS if card.name != "garbage_collection"]
    returned = asyncio.run(before_and_after(dsn, names))
    assert [] == [name for name, (old, new) in zip(names, returned, strict=True) if old != new]


# What it answers.


@pytest.fixture(scope="module")
def measured(dsn: Dsn) -> Case:
    case = Case(1, dsn)
    case.measure(seconds=1.5)
    return case


def test_an_innocent_is_acquitted_by_its_own_figures(measured: Case, deck: Any) -> None:
    innocent = next(part for part in deck.deal(1) if part.card.name == "long_loop")
    finding = measured.accuse(innocent.name)
    calls = round(innocent.rate * 1.5)
    assert not finding.guilty
    assert repr(finding).startswith(f"✘ innocent: {innocent.name} held the loop for ")
    assert f"connections for 0 ms, in {calls} calls.\nThe loop is long" in finding.message


def test_a_culprit_is_convicted_by_the_line_that_the_probe_named(dsn: Dsn, deck: Any) -> None:
    def convict() -> Finding:
        case = Case(1, dsn)
        case.measure(seconds=1.5)
        return case.accuse("exports.archive")

    finding = unless_busy(convict, lambda found: "stalls: 2" in found.message)
    assert finding.guilty
    said = (
        r"stalls: 2, the longest \d+ ms, blocked, at( or shortly before)? exports\.py:\d+ "
        r"in archive: time\.sleep"
    )
    assert re.search(said, finding.message)


def test_a_function_that_goes_with_a_culprit_is_as_good_as_the_culprit(dsn: Dsn) -> None:
    case = Case(2)  # on the same server: it asks for the database itself
    case.measure(seconds=1.5)
    assert case.accuse("pricing.voucher_part").guilty
    before = case.score
    assert case.accuse("pricing.voucher").guilty
    assert case.score == before  # naming somebody twice costs nothing


def test_the_score_counts_looks_and_what_was_not_found_is_not_repaired(dsn: Dsn, deck: Any) -> None:
    case = Case(8, dsn)
    with pytest.raises(LabError, match="3 of 3 culprits are still at large"):
        _ = case.repaired
    case.measure(seconds=1)
    for part in culprits(deck, 8):
        with pytest.raises(LabError, match="was not found guilty"):
            case.diff(part.name)
        case.accuse(part.name)
        case.diff(part.name)
    assert case.score == (
        "Case 8 is solved, with 4 looks (1 to measure, 3 to accuse). The fewest possible are 4."
    )


def test_who_is_not_there_cannot_be_accused(measured: Case) -> None:
    with pytest.raises(LabError, match=r"no function 'archive'\. Expected one of: audit\.monthly"):
        measured.accuse("archive")


def test_nobody_is_accused_before_something_was_measured() -> None:
    with pytest.raises(LabError, match=r"no evidence\. Expected `look = case\.measure\(\)` first"):
        Case(1, "no server").accuse("exports.archive")


def test_a_seed_is_a_whole_number() -> None:
    with pytest.raises(LabError, match=r"seed='seven'\. Expected a whole number: Case\(7\)"):
        Case("seven")  # type: ignore[arg-type]


# What it leaves.

STOPPED = """
import signal, sys
from labkit.exercises import find_lessons
find_lessons()
from mystery.case import Case
signal.signal(signal.SIGINT, signal.default_int_handler)
case = Case(int(sys.argv[2]), sys.argv[1])
print("begun", flush=True)
try:
    case.measure(seconds=60)
except KeyboardInterrupt:
    print("stopped", flush=True)
sys.stdin.readline()
"""


def left(dsn: str, name: str) -> int:
    """How many connections and locks somebody has."""
    connection = psycopg2.connect(dsn[:])
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity LEFT JOIN pg_locks USING (pid) "
                "WHERE application_name = %s",
                (name,),
            )
            [[count]] = cursor.fetchall()
            return int(count)
    finally:
        connection.close()


def wait_for(dsn: str, name: str, some: bool) -> bool:
    deadline = monotonic() + 20
    while (left(dsn, name) > 0) != some and monotonic() < deadline:
        pass
    return (left(dsn, name) > 0) == some


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("seed", [0, 12])  # connections asked for twice; row locks
def test_the_stop_button_leaves_no_connection_and_no_lock(dsn: Dsn, seed: int) -> None:
    name = f"mystery {seed}"
    command = [sys.executable, "-c", STOPPED, f"{dsn[:]}?application_name={name}", f"{seed}"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        assert wait_for(dsn, name, some=True)
        began = monotonic()
        process.send_signal(signal.SIGINT)
        assert "stopped\n" in process.stdout
        assert monotonic() - began < 4
        assert wait_for(dsn, name, some=False)
        process.communicate("\n")
    assert process.returncode == 0


def test_a_run_leaves_no_connection_and_no_thread(dsn: Dsn) -> None:
    server, threads = f"{dsn[:]}?application_name=mystery", threading.active_count()
    Case(11, server).measure(seconds=1)
    assert wait_for(dsn, "mystery", some=False)
    assert threading.active_count() <= threads


def test_the_dataset_is_as_it_was(dsn: Dsn) -> None:
    async def content() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(CONTENT_QUERY)
        finally:
            await connection.close()

    Case(12, dsn).measure(seconds=1)
    assert asyncio.run(content()) == CONTENT


# The stopwatch around each call.


def test_the_stopwatch_hands_on_results_errors_and_cancellations() -> None:
    from mystery.scenario import in_steps

    async def returns() -> str:
        await asyncio.sleep(0)
        return "result"

    async def raises() -> None:
        await asyncio.sleep(0)
        raise ValueError("as it should")

    async def is_cancelled() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "seen"
        return "missed"

    async def main() -> list[Any]:
        steps: list[float] = []
        fates = [await in_steps(returns, steps)]
        with pytest.raises(ValueError, match="as it should"):
            await in_steps(raises, steps)
        coroutine = asyncio.ensure_future(in_steps(is_cancelled, steps))
        await asyncio.sleep(0)
        coroutine.cancel()
        return [*fates, await coroutine, len(steps)]

    assert asyncio.run(main()) == ["result", "seen", 6]
