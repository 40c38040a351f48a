"""Check right and wrong answers again and again, with one core kept busy.

Run it by `python -m tests.exercises.hundred_checks [N [NAME ...]]`. No correct answer may be called
wrong, and no wrong one right. N is how many checks of each kind an exercise gets; 13, if it is not
given, make a hundred of each. Not a test, as that takes nine minutes.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import subprocess
import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from labkit import Exercise
from labkit.server import database
from tests.exercises.answers import Case
from tests.exercises.matrix import NAMES, cases, solution

BUSY = "while True: pass"


def main(times: int, names: list[str]) -> int:
    """Print a line an exercise. Returns 1 if a verdict was false, else 0."""
    table = Table("exercise", "correct", "called wrong", "wrong", "called right", "inconclusive")
    false = 0
    busy = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        for name in names:
            right = [Case(solution(name), "pass", "")]
            right += [case for case in cases(name) if case.outcome == "pass"]
            wrong = [case for case in cases(name) if case.outcome != "pass"]
            seen: Counter[str] = Counter()
            for case in itertools.islice(itertools.cycle(right), times):
                outcome = _outcome(name, case)
                seen["called wrong"] += outcome not in ("pass", "inconclusive")
                seen["inconclusive"] += outcome == "inconclusive"
            for case in itertools.islice(itertools.cycle(wrong), times):
                outcome = _outcome(name, case)
                seen["called right"] += outcome == "pass"
                seen["inconclusive"] += outcome == "inconclusive"
            false += seen["called wrong"] + seen["called right"]
            figures = (
                times,
                seen["called wrong"],
                times,
                seen["called right"],
                seen["inconclusive"],
            )
            table.add_row(name, *map(str, figures))
    finally:
        busy.kill()
        busy.wait()
    Console().print(table)
    return min(false, 1)


def _outcome(name: str, case: Case) -> str:
    """The outcome of one check; if it is not the expected one, what was said is shown."""
    with contextlib.redirect_stdout(io.StringIO()):
        verdict = Exercise(name)._judged(case.answer)  # not check(): it would count as solved
    if verdict.outcome != case.outcome:
        print(f"{name}, {case.answer.__name__}: expected {case.outcome!r}: {verdict.message}")
    return verdict.outcome


if __name__ == "__main__":  # spawned workers import this module again
    database()
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 13, sys.argv[2:] or NAMES))
