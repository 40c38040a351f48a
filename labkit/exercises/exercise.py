"""The machinery of "your turn": check, hint, solution.

What an exercise asks and how an answer is judged stands beside the notebooks, in
`notebooks/exercises/NAME.py`:

    check(answer)    measures scenarios that call the answer; returns a `Verdict` that passes, or
                     raises `NotYet` with what it saw, or another LabError if the answer raised
    chart(run)       draws the last of these runs; where no picture helps, there is no such function
    HINTS, SOLUTION, WHY
"""

import asyncio
import contextlib
import dis
import functools
import importlib
import inspect
import io
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from labkit import server
from labkit.display import show
from labkit.errors import LabError
from labkit.exercises import progress
from labkit.exercises.strays import answers_frame, strays_refused
from labkit.measure import STARVED, Run, TooLong, idle_since, left_behind, limited

Outcome = Literal["pass", "not yet", "raised", "inconclusive", "not attempted"]
_MARK = dict(zip(get_args(Outcome), "✔✘✘?…", strict=True))

# An answer that never ends must not keep the notebook. Load itself waits 10 s for a request.
PATIENCE = 8.0  # s; then a call of the answer that still waits is broken off
LIMIT = 30.0  # s; then a scenario is ended, whatever its loop is doing
_QUEUED = "what computed had to queue for a processor"
_UNLIKE = """what your answer returned could not be judged. Expected what the task names, of plain \
types that can be compared and printed; but comparing or printing this raised"""


class NotYet(LabError):  # noqa: N818 (it is an answer)
    """Raised by a check: what the answer does not do yet, or what cannot be told here."""

    outcome: Outcome = "not yet"


@dataclass(frozen=True, slots=True, repr=False)
class Verdict:
    """How an answer fared, what was seen, and, if it passed, why it works."""

    outcome: Outcome
    message: str
    why: str = ""
    progress: str = ""

    def __repr__(self) -> str:
        """What a reader of the notebook sees below the check."""
        why = f"\n\nWhy it works: {self.why}\n" if self.why else ""
        said = f"{_MARK[self.outcome]} {self.outcome}: {self.message}{why}\n{self.progress}"
        return said.rstrip()


class Exercise:
    """One exercise: `check(answer)`, `hint()`, `solution()`."""

    def __init__(self, name: str) -> None:
        """Load `exercises/NAME.py` from beside the notebooks.

        Raises:
            LabError: There is no such exercise, or no notebooks.
        """
        if name not in progress.EXERCISES:
            known = ", ".join(progress.EXERCISES)
            raise LabError(f"There is no exercise {name!r}. Expected one of: {known}.")
        find_lessons()
        self.name = name
        self._material: Any = importlib.import_module(f"exercises.{name}")
        self._hints = iter(self._material.HINTS)

    def check(self, answer: Callable[..., Any]) -> Verdict:
        """Judge an answer by what it does under load, say what was seen, and record the outcome.

        A call that still waits after `PATIENCE` is broken off, and so is what keeps the loop busy
        when `LIMIT` is over: an answer that never ends does not keep the notebook.

        Raises:
            LabError: An earlier answer or scenario still runs: this one would be judged falsely.
        """
        if where := left_behind():
            raise LabError(
                f"This answer was not checked: an earlier answer or scenario still runs, at "
                f"{where}. Expected that it has ended. Wait for that, or restart the kernel."
            )
        verdict = self._judged(answer)
        failed = progress.record(self.name, verdict.outcome)
        return replace(verdict, progress=f"{progress.solved()} {failed}".strip())

    def _judged(self, answer: Callable[..., Any]) -> Verdict:
        if _is_a_stub(answer):
            said = "Replace the stub (`...`) by your answer, and run again."
            return Verdict("not attempted", said)
        if not callable(answer):
            said = f"Expected a coroutine function (`async def`), and got {answer!r:.80}."
            return Verdict("not yet", said)
        import psutil  # here, as `import labkit` is to be quick

        endless: list[NotYet] = []
        before = psutil.cpu_times()
        with limited(LIMIT) as runs, strays_refused() as strays:
            try:
                verdict: Verdict = self._material.check(_patient(answer, endless, before))
            except TooLong as late:
                return Verdict("not yet", f"your answer {late}.")
            except LabError as seen:
                verdict = Verdict(getattr(seen, "outcome", "raised"), str(seen))
            except Exception as error:
                if not runs:  # nothing was returned: the server is at fault, or the check
                    raise
                at = traceback.extract_tb(error.__traceback__)[-1]
                said = traceback.format_exception_only(error)[-1].strip()
                verdict = Verdict("not yet", f"{_UNLIKE} {said} (at line {at.lineno}, {at.name}).")
        if strays and verdict.outcome != "pass":  # whatever came of it
            return Verdict("not yet", strays[0])
        if endless and verdict.outcome in ("pass", "raised"):
            return Verdict(endless[0].outcome, str(endless[0]))
        if runs and hasattr(self._material, "chart"):
            self._material.chart(runs[-1])
        return replace(verdict, why=self._material.WHY if verdict.outcome == "pass" else "")

    def hint(self) -> None:
        """Show the next hint."""
        show(next(self._hints, "That was the last hint. solution() shows one answer that passes."))

    def solution(self) -> None:
        """Show an answer that passes, and why it does."""
        show(f"{self._material.SOLUTION.strip()}\n\nWhy it works: {self._material.WHY}")


def by_the_clock(run: Run, least_ms: float, seen: str, over: float = math.inf) -> NotYet:
    """Make the error for a verdict that rests on a time, which a busy machine may have caused.

    Args:
        run: Where it was seen.
        least_ms: How late the machine must have been to bring about the same by itself.
        seen: What was seen, in a sentence.
        over: The figure divided by its limit, if the figure grows with computing time, the
            answer's or the server's. Where no processor is free, computing may take four times as
            long: up to there, the answer is not accused. 1 for what waits in a queue, which then
            grows without an end.
    """
    late = ""
    if run.machine.starved and over < 4:
        late = _QUEUED
    if run.noise_max_ms >= least_ms:
        late = f"by itself it was up to {run.noise_max_ms:.0f} ms late"
    return _unless(late, seen)


def _unless(late: str, seen: str) -> NotYet:
    """What was seen, unless the machine was late, as is said in words."""
    if not late:
        return NotYet(seen)
    todo = "Close other programs, and run the check again."
    unknown = NotYet(f"{seen} But this machine is busy: {late}. {todo}")
    unknown.outcome = "inconclusive"
    return unknown


def database() -> server.Dsn:
    """As `labkit.database()`, without its line: the notebook has said which server it is."""
    with contextlib.redirect_stdout(io.StringIO()):
        return server.database()


def find_lessons() -> None:
    """Let the modules beside the notebooks be imported, wherever this process was started."""
    if (path := str(progress.notebooks())) not in sys.path:
        sys.path.append(path)  # after where the kernel runs: a learner's own copy


def _patient(answer: Callable[..., Any], endless: list[NotYet], before: Any) -> Callable[..., Any]:
    """Break off each call that has not ended in time, and note where it waited.

    An answer need only return what can be awaited: it may be decorated, or an object. `before` is
    what psutil.cpu_times() gave when the check began.
    """

    @functools.wraps(answer)
    async def patient(*args: Any) -> Any:
        try:
            async with asyncio.timeout(PATIENCE) as limit:
                called = answer(*args)
                what = f"{called!r:.80}, which cannot be awaited. Expected a coroutine function "
                what += "(`async def`)"
                if inspect.isawaitable(called):
                    got = await called
                    if not (inspect.iscoroutine(got) or asyncio.isfuture(got)):
                        return got  # perhaps a pool, which can be awaited, and need not be
                    got.cancel() if asyncio.isfuture(got) else got.close()  # else Python warns
                    what = f"a {type(got).__name__} that nobody awaited: write `return await …`"
        except TimeoutError as error:
            if not limit.expired() or error.__cause__ is None:
                raise
            trace = traceback.extract_tb(error.__cause__.__traceback__)
            said = f"a call of your answer had not ended after {PATIENCE:g} s: it waited at "
            late = _QUEUED if idle_since(before) < STARVED else ""
            endless.append(_unless(late, f"{said}{answers_frame(trace)}."))
            raise endless[-1] from None
        endless.append(NotYet(f"a call of your answer returned {what}."))
        raise endless[-1]

    return patient


def _is_a_stub(answer: Any) -> bool:
    """Whether nothing was written: `...`, `pass`, a docstring, `raise NotImplementedError`."""

    async def empty() -> None: ...

    async def raises() -> None:
        raise NotImplementedError("to do")

    code = getattr(answer, "__code__", None)
    if code is None:
        return answer is None or answer is ...
    steps = {step.opname for stub in (empty, raises) for step in dis.get_instructions(stub)}
    values = {type(None), type(...), str}
    return (
        {step.opname for step in dis.get_instructions(code)} <= steps
        and {*code.co_names} <= {"NotImplementedError"}
        and {type(value) for value in code.co_consts} <= values
    )
