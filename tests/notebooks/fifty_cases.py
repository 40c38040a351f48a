"""Solve fifty cases of the mystery by what the probe and the gauges say, and by nothing else.

Run it by `python -m tests.notebooks.fifty_cases [SEED ...]`: two minutes. It prints what it could
not solve. `test_mystery` solves a few cases in the same way, such that each card is in one of them.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path

from labkit import Run
from labkit.exercises import find_lessons
from labkit.server import database

find_lessons()
from mystery.case import Case  # noqa: E402 (after the path)

SEEDS = range(50)


# The solver has what the reader has: the runs, and the names of the functions.


def blamed(runs: list[Run], functions: list[str]) -> list[str]:
    """Functions named in two stalls or more, and in a third of their calls; the costliest first."""
    times: dict[str, list[float]] = {}
    for stall in (stall for run in runs for stall in run.stalls):
        frame = stall.frame
        name = f"{Path(frame.file).stem}.{frame.function}" if frame else ""
        if name in functions:
            times.setdefault(name.removesuffix("_part"), []).append(stall.duration_ms)
    calls = Counter(offer for run in runs for offer in run.requests.offer)
    often = [name for name, all_of_it in times.items() if len(all_of_it) >= max(2, calls[name] / 3)]
    return sorted(often, key=lambda name: -sum(times[name]))


def without_idle(run: Run) -> list[float]:
    """When (s) the pool had no connection left, though nothing held the loop, nor just had."""
    stalls = [(s.start_s, s.start_s + s.duration_ms / 1e3 + 0.05) for s in run.stalls]
    readings = run.gauges["idle"]
    moments = readings.index[readings == 0]
    return [at for at in moments if not any(start <= at <= end for start, end in stalls)]


def holders(run: Run) -> Counter[str]:
    """Who had the connections when none was left: an entry for each connection and reading."""
    spans = run.spans[(run.spans.span == "connection") & (run.spans.request >= 0)]
    offers = run.requests.offer[spans.request].to_numpy()
    ends = spans.start_s + spans.span_ms / 1e3
    found: Counter[str] = Counter()
    for at in without_idle(run):
        found.update(offers[(spans.start_s <= at) & (ends >= at)])
    return found


def hoarder(runs: list[Run]) -> list[str]:
    """Who had most of the connections, if for longer than a moment there was none left."""
    found = sum((holders(run) for run in runs), Counter[str]())
    moments = sum(len(without_idle(run)) for run in runs)
    likely = found.most_common(1)
    return [likely[0][0]] if moments >= 5 * len(runs) and likely[0][1] > 2.5 * moments else []


def solve(seed: int, dsn: str) -> tuple[Case, list[str]]:
    """Measure and accuse until the case is solved; return it, and who was accused in vain."""
    case, runs, wrong = Case(seed, dsn), list[Run](), list[str]()
    accused: set[str] = set()
    while "solved" not in case.score and len(runs) < 6:
        runs.append(case.measure(seconds=1.5))
        for name in hoarder(runs) + blamed(runs, case.functions):
            if name not in accused and "solved" not in case.score:
                accused.add(name)
                wrong += [name] * (not case.accuse(name).guilty)
    return case, wrong


def main(seeds: list[int]) -> int:
    """Print a line for each case that is not solved, or with a wrong accusation; count them."""
    dsn, failures = database(), 0
    for seed in seeds:
        with contextlib.redirect_stdout(io.StringIO()):
            case, wrong = solve(seed, dsn)
        if "is solved" not in case.score or wrong:
            failures += 1
            print(f"{case.score} Accused in vain: {', '.join(wrong) or 'nobody'}.", flush=True)
    print(f"{len(seeds) - failures} of {len(seeds)} cases solved without a wrong accusation.")
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main([int(word) for word in sys.argv[1:]] or list(SEEDS)))
