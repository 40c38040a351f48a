"""Execute the notebooks, each in a kernel of its own, and report on them."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from traitlets import default

from labkit import exercises
from labkit.errors import LabError
from labkit.server import database
from labkit.workbook.report import PLAIN, VERDICT, Result, collect, index, page, print_scoreboard

CELL_SECONDS = 300  # more than any cell needs, so that a hung one ends


class OnlyThisPython(KernelSpecManager):
    """Knows one kernel, "python3", and that is the Python which runs this program.

    A kernel of that name in the user's own directories would otherwise win, and lack labkit.
    """

    @default("kernel_dirs")
    def _none(self) -> list[str]:
        return []  # which leaves ipykernel's own


class _Loop(asyncio.SelectorEventLoop):  # on Windows, too: ZeroMQ cannot use the default there
    def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError  # nbclient's would take Ctrl-C away from asyncio.Runner


def run(only: Sequence[str] = (), report: Path | None = None) -> int:
    """Execute notebooks; report on stdout, in `runs/`, and in a file of JSON if one is named.

    Args:
        only: How the notebooks' names begin ("01"); all of them, if there is none.
        report: Where the JSON goes.

    Returns:
        The exit status: 0 if every notebook ran and every claim held, else 1.

    Raises:
        LabError: No such notebook, no database, or nowhere to write.
        KeyboardInterrupt: Ctrl-C; the kernel has been shut down.
    """
    notebooks, pages = _read(only), exercises.notebooks().parent / "runs"
    try:
        if report is not None:
            report.open("a").close()  # find out now, rather than after minutes
        database()  # holds the embedded server until the last kernel is gone: it starts once
        pages.mkdir(exist_ok=True)
        results = _execute_all(notebooks, pages)
        (pages / "index.html").write_text(index(results), "utf-8")
        if report is not None:
            data = {"python": sys.version.split()[0], "notebooks": [asdict(r) for r in results]}
            report.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise LabError(
            f"{error.filename} cannot be written: {error.strerror}. Expected an existing "
            "directory with room, in which you may write."
        ) from None
    print_scoreboard(results)
    print(f"\nAs pages: {pages / 'index.html'}")
    unwell = [result for result in results if not result.verdict.startswith("✔")]
    print(f"{len(results) - len(unwell)} of {len(results)} notebooks ran, and all they claim held.")
    for result in unwell:
        claims = [claim["claim"] for claim in result.claims if claim["held"] is not True]
        print(f"{result.notebook}: {result.verdict}: {'; '.join(claims) or 'see above'}")
    return 1 if unwell else 0


def _read(only: Sequence[str]) -> dict[Path, NotebookNode]:
    paths = sorted(exercises.notebooks().glob("[0-9][0-9]_*.ipynb"))
    unknown = [start for start in only if not any(p.name.startswith(start) for p in paths)]
    if unknown or not paths:
        known = ", ".join(path.stem for path in paths) or "none is in this checkout"
        raise LabError(f"There is no notebook {' '.join(unknown)}. Expected one of: {known}.")
    notebooks: dict[Path, NotebookNode] = {}
    read: Callable[..., NotebookNode] = nbformat.read
    for path in paths:
        if only and not path.name.startswith(tuple(only)):
            continue
        try:
            notebooks[path] = read(path, as_version=4)
        except ValueError:
            raise LabError(f"{path.name} is no notebook. Expected JSON: restore it.") from None
        for cell in notebooks[path].cells:
            cell.update({"outputs": []} if cell.cell_type == "code" else {})  # an earlier run's
    return notebooks


def _execute_all(notebooks: dict[Path, NotebookNode], pages: Path) -> list[Result]:
    fields = ("{task.fields[name]}", "{task.description}")
    name, step = (TextColumn(text, markup=False) for text in fields)
    console, results = Console(stderr=True, soft_wrap=True, **PLAIN), []
    bar = Progress(name, BarColumn(12), TimeElapsedColumn(), step, console=console, transient=True)
    bar.disable = not console.is_terminal
    with bar:
        for path, source in notebooks.items():
            result, notebook = _execute(path, source, bar)
            html = page(notebook, [path.stem for path in notebooks])
            (pages / f"{path.stem}.html").write_text(html, "utf-8")
            line = f"{path.stem} … {result.seconds:.0f} s, {result.verdict}"
            if result.unclear:
                line += f" (inconclusive at first: {'; '.join(result.unclear)})"
            console.print(line)
            results.append(result)
    return results


def _execute(path: Path, source: NotebookNode, bar: Progress) -> tuple[Result, NotebookNode]:
    """Execute a copy of a notebook; once more if it is inconclusive."""
    step = title = next((h[0] for cell in source.cells if (h := _headings(cell))), path.stem)
    source.metadata.title = title
    task = bar.add_task(step[:25], total=len(source.cells), name=path.stem)
    started = time.monotonic()

    def on_cell(cell: NotebookNode, cell_index: int) -> None:
        nonlocal step
        step = [step, *_headings(cell)][-1]
        bar.update(task, completed=cell_index, description=step[:25])

    unclear: list[str] = []
    for attempt in (1, 2):
        notebook = copy.deepcopy(source)
        result = Result(path.stem, title, attempts=attempt, unclear=unclear)
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                runner.run(_in_a_kernel(notebook, path.parent, on_cell))
        except Exception as error:
            result.error = f"In step “{step}”: {_explained(error)}"
        collect(notebook, result)
        if result.verdict != VERDICT[None]:
            break
        unclear = [claim["claim"] for claim in result.claims if claim["held"] is None]
    bar.remove_task(task)
    result.seconds = round(time.monotonic() - started, 1)
    return result, notebook


async def _in_a_kernel(notebook: NotebookNode, path: Path, on_cell: Callable[..., None]) -> None:
    kernel = AsyncKernelManager(kernel_spec_manager=OnlyThisPython())
    options: dict[str, Any] = {"timeout": CELL_SECONDS, "on_cell_start": on_cell}
    client = NotebookClient(notebook, kernel, resources={"metadata": {"path": path}}, **options)
    try:
        # What the kernel says, other than its cells, is about its own state of health.
        await client.async_execute(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except DeadKernelError:
        # Also how nbclient passes on that it was cancelled.
        if (task := asyncio.current_task()) and task.cancelling():
            raise asyncio.CancelledError from None
        raise
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
        await kernel.shutdown_kernel()


def _headings(cell: NotebookNode) -> list[str]:
    prose = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL)
    found = re.findall(r"^#+ (.+)", prose, re.MULTILINE) if cell.cell_type == "markdown" else []
    return [re.sub("[*`]", "", heading) for heading in found]


def _explained(error: Exception) -> str:
    """What a notebook raised: a LabError's own words, or the last lines of anything else."""
    if isinstance(error, CellExecutionError) and error.ename == "LabError":
        return error.evalue
    if isinstance(error, CellTimeoutError):
        return f"a cell took more than {CELL_SECONDS} s"
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error) or type(error).__name__)
    return "\n".join([line for line in text.splitlines() if line.strip()][-6:])
