"""The machinery of "your turn": check, hint, solution.

What an exercise asks and how an answer is judged stands beside the notebooks, in
`notebooks/exercises/NAME.py`: a `check(answer)` that returns a `Verdict`, a list `HINTS`, the
`SOLUTION` as code, and `WHY` it works.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from labkit.display import show
from labkit.errors import LabError

Outcome = Literal["pass", "not yet", "raised", "not attempted"]
_MARK = {"pass": "✔", "not yet": "✘", "raised": "✘", "not attempted": "…"}


@dataclass(frozen=True, slots=True, repr=False)
class Verdict:
    """How an answer fared, what was seen, and, if it passed, why it works."""

    outcome: Outcome
    message: str
    why: str = ""

    def __repr__(self) -> str:
        """What a reader of the notebook sees below the check."""
        why = f"\nWhy it works: {self.why}" if self.why else ""
        return f"{_MARK[self.outcome]} {self.outcome}: {self.message}{why}"


class Exercise:
    """One exercise: `check(answer)`, `hint()`, `solution()`."""

    def __init__(self, name: str) -> None:
        """Load `exercises/NAME.py` from beside the notebooks."""
        path = notebooks() / "exercises" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"exercise_{name}", path)
        if not path.exists() or spec is None or spec.loader is None:
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.py"))) or "none"
            raise LabError(f"There is no exercise {name!r}. Expected one of: {known}.")
        if str(notebooks()) not in sys.path:
            sys.path.insert(0, str(notebooks()))  # where the lessons' own modules are
        self._material: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._material)
        self._hints = iter(self._material.HINTS)

    def check(self, answer: Callable[..., Any]) -> Verdict:
        """Judge an answer by what it does under load, and say what was seen."""
        if _is_untouched(answer):
            return Verdict("not attempted", "Replace the `...` by your answer, and run again.")
        if not inspect.iscoroutinefunction(answer):
            return Verdict(
                "not yet", f"Expected a coroutine function (`async def`): {answer!r:.80}."
            )
        try:
            verdict: Verdict = self._material.check(answer)
        except LabError as error:
            return Verdict("raised", str(error))
        return replace(verdict, why=self._material.WHY if verdict.outcome == "pass" else "")

    def hint(self) -> None:
        """Show the next hint."""
        show(next(self._hints, "That was the last hint. solution() shows one answer that passes."))

    def solution(self) -> None:
        """Show an answer that passes, and why it does."""
        show(f"{self._material.SOLUTION.strip()}\n\nWhy it works: {self._material.WHY}")


def notebooks() -> Path:
    """The directory of the notebooks.

    Raises:
        LabError: labkit was installed without them.
    """
    path = Path(__file__).parent.parent / "notebooks"
    if not path.is_dir():
        raise LabError(
            "labkit was installed apart from its notebooks. Expected a checkout of the workbook: "
            "run `pip install -e .` in it."
        )
    return path


def _is_untouched(answer: object) -> bool:
    async def untouched() -> None: ...

    code = getattr(answer, "__code__", None)
    empty = untouched.__code__.co_code
    return answer is None or answer is ... or getattr(code, "co_code", None) == empty
