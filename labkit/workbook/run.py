"""Execute the notebooks, each in a kernel of its own, and report on them."""

import copy
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nbclient.exceptions import CellTimeoutError
from nbformat import NotebookNode
from rich.console import Console
from rich.status import Status
from rich.text import Text

from labkit import exercises
from labkit.measure import VERDICT
from labkit.server import database
from labkit.workbook.doctor import TEMPORARY_MB
from labkit.workbook.kernel import execute, refuse_homeless
from labkit.workbook.pages import overview, write
from labkit.workbook.report import (
    PLAIN,
    Result,
    headings,
    in_sum,
    print_scoreboard,
    read,
    results_of,
)

CELL_SECONDS = 300  # more than any cell needs, so that a hung one ends
ATTEMPTS = 2  # at an inconclusive notebook


def run(only: Sequence[str] = (), report: Path | None = None) -> int:
    """Execute notebooks; report on stdout, in `runs/`, and in a file of JSON if one is named.

    Args:
        only: How the notebooks' names begin ("01"); all of them, if there is none.
        report: Where the JSON goes.

    Returns:
        The exit status: 0 if every notebook ran and every claim held, else 1.

    Raises:
        LabError: No such notebook, no home directory, or no database.
        KeyboardInterrupt: Ctrl-C; what was executed before is reported.
    """
    notebooks = read(only)
    refuse_homeless(writes=False)
    directory = exercises.notebooks().parent / "runs"
    directory.mkdir(exist_ok=True)
    tempfile.TemporaryFile(dir=directory).close()  # find out now, rather than after minutes
    with tempfile.TemporaryFile() as file:  # the pages take nearly as much while they are made
        file.write(bytes(TEMPORARY_MB * 1_000_000))
    if report is not None:
        report.open("a").close()
    database()  # holds the embedded server until the last kernel is gone: it starts once
    executed = _execute_all(notebooks)
    results = [result for result, _ in executed.values()]
    stopped = len(executed) < len(notebooks)
    if report is not None:
        told = [asdict(result) for result in results]
        data = {"python": sys.version.split()[0], "stopped": stopped, "notebooks": told}
        report.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
    try:
        first = overview(results, results_of({path: notebooks[path] for path in executed}))
        write({path: notebook for path, (_, notebook) in executed.items()}, first, directory)
        pages = f"As pages: {directory / 'index.html'}"
    except Exception as error:  # the verdicts are told all the same
        pages = f"There are no new pages: {error}"
    print_scoreboard(results)  # after them: nobody may read on, as `head` does not
    print(f"\n{pages}")
    if stopped:
        print(f"Stopped after {len(executed)} of {len(notebooks)}.")
    print(in_sum(results))
    unwell = [result for result in results if not result.verdict.startswith("✔")]
    for result in unwell:
        claims = [claim["claim"] for claim in result.claims if claim["held"] is not True]
        print(f"{result.notebook}: {result.verdict}: {'; '.join(claims) or 'see above'}")
    if stopped:
        raise KeyboardInterrupt
    return 1 if unwell else 0


def _execute_all(notebooks: dict[Path, NotebookNode]) -> dict[Path, tuple[Result, NotebookNode]]:
    console = Console(stderr=True, soft_wrap=True, **PLAIN)
    executed: dict[Path, tuple[Result, NotebookNode]] = {}
    try:
        with console.status("", spinner="line") as status:  # seen in a terminal only
            for path, source in notebooks.items():
                result, _ = executed[path] = _execute(path, source, status)
                line = f"{path.stem} … {result.seconds:.0f} s, {result.verdict}"
                if result.unclear:
                    line += f" (inconclusive at first: {'; '.join(result.unclear)})"
                console.print(line)
    except KeyboardInterrupt:
        if not executed:
            raise
        console.print("Stopping, after a report on what was executed; Ctrl-C leaves it out.")
    return executed


def _execute(path: Path, source: NotebookNode, status: Status) -> tuple[Result, NotebookNode]:
    """Execute a copy of a notebook; once more if it is inconclusive."""
    step, started = path.stem, time.monotonic()
    unclear: list[str] = []

    def on_cell(cell: NotebookNode, cell_index: int) -> None:
        nonlocal step
        step = [step, *headings(cell)][-1]
        status.update(Text(f"{path.stem}, cell {cell_index + 1} of {len(source.cells)}: {step}"))

    for attempt in range(1, ATTEMPTS + 1):
        notebook, raised = copy.deepcopy(source), None
        for cell in notebook.cells:
            cell.update({"outputs": []} if cell.cell_type == "code" else {})  # an earlier run's
        try:
            execute(notebook, path.parent, timeout=CELL_SECONDS, on_cell_start=on_cell)
        except Exception as error:
            raised = f"In step “{step}”: {_explained(error)}"
        [result] = results_of({path: notebook})
        result.error, result.attempts, result.unclear = raised, attempt, unclear
        if result.verdict != VERDICT[None]:
            break
        unclear = [claim["claim"] for claim in result.claims if claim["held"] is None]
    result.seconds = round(time.monotonic() - started, 1)
    return result, notebook


def _explained(error: Exception) -> str:
    """What a notebook raised: a LabError's own words, or the last lines of anything else."""
    if isinstance(error, CellTimeoutError):
        return f"a cell took more than {CELL_SECONDS} s"
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error) or type(error).__name__)
    return "\n".join([line for line in text.splitlines() if line.strip()][-6:])
