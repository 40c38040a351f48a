"""The machinery of "your turn": check, hint, solution.

What an exercise asks and how an answer is judged stands beside the notebooks, in
`notebooks/exercises/NAME.py`:

    check(answer)    measures scenarios that call the answer; returns a `Verdict` that passes,
                     raises `NotYet` with what it saw, or another LabError if the answer raised
    chart(run)       draws the last of these runs; where no picture helps, there is no such function
    HINTS, SOLUTION, WHY
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from labkit.display import show
from labkit.errors import LabError
from labkit.exercises import progress
from labkit.measure import Run, TooLong, left_behind, limited
from labkit.probe import Frame, Stall, users_frame

Outcome = Literal["pass", "not yet", "raised", "inconclusive", "not attempted"]
_MARK = dict(zip(get_args(Outcome), "✔✘✘?…", strict=True))

# An answer that never ends must not keep the notebook. Load itself waits 10 s for a request.
PATIENCE = 8.0  # s; then a call of the answer that still waits is broken off
LIMIT = 30.0  # s; then a scenario is ended, whatever its loop is held by


class NotYet(LabError):  # noqa: N818 (it is an answer)
    """Raised by a check: what the answer does not do yet."""


class Inconclusive(LabError):  # noqa: N818 (it is an answer)
    """Raised by a check: what was seen may be the machine's doing."""


@dataclass(frozen=True, slots=True, repr=False)
class Verdict:
    """How an answer fared, what was seen, and, if it passed, why it works."""

    outcome: Outcome
    message: str
    why: str = ""
    progress: str = ""

    def __repr__(self) -> str:
        """What a reader of the notebook sees below the check."""
        why = f"\nWhy it works: {self.why}" if self.why else ""
        solved = f"\n{self.progress}" if self.progress else ""
        return f"{_MARK[self.outcome]} {self.outcome}: {self.message}{why}{solved}"


class Exercise:
    """One exercise: `check(answer)`, `hint()`, `solution()`."""

    def __init__(self, name: str) -> None:
        """Load `exercises/NAME.py` from beside the notebooks."""
        path = notebooks() / "exercises" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"exercise_{name}", path)
        if not path.exists() or spec is None or spec.loader is None:
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.py"))) or "none"
            raise LabError(f"There is no exercise {name!r}. Expected one of: {known}.")
        find_lessons()
        self.name = name
        self._material: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._material)
        self._hints = iter(self._material.HINTS)

    def check(self, answer: Callable[..., Any]) -> Verdict:
        """Judge an answer by what it does under load, say what was seen, and record the outcome.

        A call that still waits after `PATIENCE` is broken off, and so is what holds the loop when
        `LIMIT` is over: an answer that never ends does not keep the notebook.

        Raises:
            LabError: An earlier answer still holds its loop: the next would be judged falsely.
        """
        if where := left_behind():
            raise LabError(
                f"This answer was not checked: an earlier one still runs, at {where}. Expected "
                f"that it has ended. Wait for that, or restart the kernel."
            )
        verdict = self._judged(answer)
        failed = ""
        if verdict.outcome != "not attempted":
            failed = progress.record(self.name, verdict.outcome)
        every = [name for names in catalogue().values() for name in names]
        return replace(verdict, progress=f"{progress.solved(every)} {failed}".strip())

    def _judged(self, answer: Callable[..., Any]) -> Verdict:
        if _is_untouched(answer):
            return Verdict("not attempted", "Replace the `...` by your answer, and run again.")
        if not inspect.iscoroutinefunction(answer):
            return Verdict(
                "not yet", f"Expected a coroutine function (`async def`): {answer!r:.80}."
            )
        endless: list[str] = []
        with limited(LIMIT) as runs:
            try:
                verdict: Verdict = self._material.check(_patient(answer, endless))
            except TooLong as late:
                return Verdict("not yet", f"your answer {late}.")
            except NotYet as seen:
                verdict = Verdict("not yet", str(seen))
            except Inconclusive as unsure:
                verdict = Verdict("inconclusive", str(unsure))
            except LabError as error:
                verdict = Verdict("raised", str(error))
        if endless and verdict.outcome in ("pass", "raised"):
            return Verdict("not yet", endless[0])
        if runs and hasattr(self._material, "chart"):
            self._material.chart(runs[-1])
        return replace(verdict, why=self._material.WHY if verdict.outcome == "pass" else "")

    def hint(self) -> None:
        """Show the next hint."""
        show(next(self._hints, "That was the last hint. solution() shows one answer that passes."))

    def solution(self) -> None:
        """Show an answer that passes, and why it does."""
        show(f"{self._material.SOLUTION.strip()}\n\nWhy it works: {self._material.WHY}")


def held_by(run: Run, least: float, *sources: str | Callable[..., Any]) -> list[Stall]:
    """The stalls that an answer made, if there are enough of them to be sure; else none.

    Args:
        run: What was seen.
        least: How many are enough: a single one may be the machine's.
        sources: The answer, and the files of other code that counts as its own.

    Raises:
        Inconclusive: There are enough, but they are no longer than the machine's own delays.
    """
    files = {s if isinstance(s, str) else source_file(s) for s in sources}
    held = [
        stall
        for stall in run.stalls
        if stall.thread is None and files & {frame.file for frame in stall.stack}
    ]
    if len(held) < least:
        return []
    if sum(stall.duration_ms > run.noise_max_ms for stall in held) < least:
        raise Inconclusive(
            f"the loop stood still in your code {len(held)} times, but this machine is busy: it "
            f"was up to {run.noise_max_ms:.0f} ms late by itself. Close other programs, and run "
            f"it again."
        )
    return held


def source_file(answer: Callable[..., Any]) -> str:
    """The file, or the notebook's cell, in which an answer is written."""
    return str(getattr(inspect.unwrap(answer), "__code__", _patient.__code__).co_filename)


def catalogue() -> dict[str, list[str]]:
    """The names of the exercises in each notebook that has any, in their order."""
    found = {
        path.stem: re.findall(r'lab\.Exercise\(\\"(\w+)\\"\)', path.read_text("utf-8"))
        for path in sorted(notebooks().glob("[0-9][0-9]_*.ipynb"))
    }
    return {notebook: [*dict.fromkeys(names)] for notebook, names in found.items() if names}


def notebooks() -> Path:
    """The directory of the notebooks.

    Raises:
        LabError: labkit was installed without them.
    """
    path = Path(__file__).parents[2] / "notebooks"
    if not path.is_dir():
        raise LabError(
            "labkit was installed apart from its notebooks. Expected a checkout of the workbook: "
            "run `pip install -e .` in it."
        )
    return path


def find_lessons() -> None:
    """Let the modules beside the notebooks be imported, wherever this process was started."""
    if str(notebooks()) not in sys.path:
        sys.path.append(str(notebooks()))  # after where the kernel runs: a learner's own copy


def _patient(answer: Callable[..., Any], endless: list[str]) -> Callable[..., Any]:
    """Break off each call that has not ended in time, and note where it waited."""

    @functools.wraps(answer)
    async def patient(*args: Any) -> Any:
        try:
            async with asyncio.timeout(PATIENCE) as limit:
                return await answer(*args)
        except TimeoutError as error:
            if not limit.expired() or error.__cause__ is None:
                raise
            trace = traceback.extract_tb(error.__cause__.__traceback__)
            where = users_frame(tuple(Frame(f.filename, f.lineno or 0, f.name) for f in trace))
            said = f"a call of your answer had not ended after {PATIENCE:g} s: it waited at {where}"
            endless.append(f"{said}.")
            raise NotYet(endless[-1]) from None

    return patient


def _is_untouched(answer: object) -> bool:
    async def untouched() -> None: ...

    code = getattr(answer, "__code__", None)
    empty = untouched.__code__.co_code
    return answer is None or answer is ... or getattr(code, "co_code", None) == empty
