"""What became of each notebook, and how the terminal shows it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from labkit import exercises
from labkit.errors import LabError
from labkit.measure import VERDICT, ms

PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}  # [1] stays [1]
Figures = dict[str, Any]  # of a run or of a claim


@dataclass
class Result:
    """What became of one notebook: its error, if it raised, and the figures that it showed."""

    notebook: str
    title: str
    seconds: float = 0.0  # of all attempts
    attempts: int = 0
    unclear: list[str] = field(default_factory=list)  # claims, in the attempt before this one
    error: str | None = None
    runs: list[Figures] = field(default_factory=list)
    pairs: list[list[Figures]] = field(default_factory=list)  # before, after
    claims: list[Figures] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """In a word or two; what is well begins with ✔."""
        held = [claim["held"] for claim in self.claims]
        if self.error is not None or not held:
            return "✔ ran" if self.error is None else "✘ raised"
        return VERDICT[False if False in held else None if None in held else True]


def read(only: Sequence[str] = ()) -> dict[Path, NotebookNode]:
    """Read the notebooks as they are committed; see `labkit.workbook.run.run`."""
    every = sorted(exercises.notebooks().glob("[0-9][0-9]_*.ipynb"))
    unknown = [s for s in only if not (s and any(path.name.startswith(s) for path in every))]
    if unknown or not every:
        known = ", ".join(path.stem for path in every) or "none is in this checkout"
        raise LabError(f"There is no notebook “{' '.join(unknown)}”. Expected one of: {known}.")
    notebooks = {}
    for path in (path for path in every if path.name.startswith(tuple(only) or "")):
        try:
            notebooks[path] = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        except (ValueError, AttributeError, TypeError, nbformat.ValidationError):
            raise LabError(
                f"{path.name} is no notebook. Expected JSON with cells. To do: restore that file."
            ) from None
    return notebooks


def results_of(notebooks: Mapping[Path, NotebookNode]) -> list[Result]:
    """What the notebooks' outputs tell, in their metadata: see `labkit.display.show`."""
    results = []
    for path, notebook in notebooks.items():
        titles = (heading for cell in notebook.cells for heading in headings(cell))
        results.append(result := Result(path.stem, next(titles, path.stem)))
        for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
            data = output.get("metadata", {}).get("labkit", {})
            result.runs += [data["run"]] if "run" in data else []
            result.pairs += [data["pair"]] if "pair" in data else []
            result.claims += data.get("claims", ())
    return results


def headings(cell: NotebookNode) -> list[str]:
    """The headings in a cell of prose."""
    prose = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
    found = re.findall(r"^#+ (.+)", prose, re.MULTILINE) if cell.cell_type == "markdown" else []
    return [re.sub("[*`]", "", heading) for heading in found]


def in_ms(pair: Sequence[Figures], key: str = "p99_ms") -> str:
    """One of a pair's times, before and after."""
    return " → ".join("none" if run[key] is None else ms(run[key]) for run in pair)


def in_sum(results: Sequence[Result]) -> str:
    """How many of the notebooks are well, in a sentence."""
    well = sum(result.verdict.startswith("✔") for result in results)
    return f"In {well} of {len(results)} notebooks every claim held."


def print_scoreboard(results: Sequence[Result]) -> None:
    """Print each pair and each claim, notebook by notebook, to stdout."""
    console = Console(**PLAIN)
    for result in results:
        console.print(f"\n{result.notebook}: {result.verdict}", style="bold")
        pairs = Table("before → after", "p50 (ms)", "p99 (ms)", "max (ms)", "stalls", box=SIMPLE)
        for pair in result.pairs:
            times = [in_ms(pair, key) for key in ("p50_ms", "p99_ms", "max_ms")]
            name, stalls = (" → ".join(str(run[key]) for run in pair) for key in ("name", "stalls"))
            pairs.add_row(name, *times, stalls)
        claims = Table("verdict", "claim", "figure", box=SIMPLE)
        for claim in result.claims:
            figure = "; ".join(filter(None, (claim["figure"], claim.get("why"))))
            claims.add_row(VERDICT[claim["held"]], claim["claim"], figure)
        console.print(*(table for table in (pairs, claims) if table.row_count), end="")
        if result.error is not None:
            console.print(result.error, soft_wrap=True)
        if result.verdict == VERDICT[None]:
            console.print("inconclusive: run it again when this machine is quiet")
