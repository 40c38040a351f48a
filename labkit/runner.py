"""Execute the notebooks, and report: a scoreboard, a page for each, and the figures as JSON."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from traitlets import default

from labkit import exercises
from labkit.database import database
from labkit.errors import LabError
from labkit.run import ms

CELL_SECONDS = 300  # more than any cell needs, so that a hung one ends
VERDICT = {True: "✔ held", False: "✘ broken", None: "? inconclusive"}
PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}  # [1] stays [1]
Figures = dict[str, Any]  # of a run or of a claim

# nbconvert's page for lab, without the scripts that it loads from the network (it opens without),
# and with the text that stands for a picture.
PAGE = """{% extends 'index.html.j2' %}
{% block html_head_js %}{% endblock %}{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block body_header %}{{ super() }}<p><a href="index.html">All notebooks</a></p>{% endblock %}
{% block data_png scoped %}{% set picture = output.metadata.get('image/png', {}) %}
<img src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"
 alt="{{ picture.get('alt', output.data.get('text/plain', '')) | escape_html }}"
 {% if picture.width %}width="{{ picture.width }}"{% endif %}>{% endblock %}"""
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>The asyncpg stall workbook, executed</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark } @media (prefers-color-scheme: dark) { body { color: #ddd } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
th, td { text-align: left; padding: .4rem 1.2rem .4rem 0; border-bottom: 1px solid #8888 }
</style></head><body><main><h1>The asyncpg stall workbook, executed</h1>
<table><caption>Each notebook, and whether what it claims held on this machine</caption>
<tr>HEAD</tr>
ROWS</table></main></body></html>
"""


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


@dataclass
class Result:
    """What became of one notebook: its error, if it raised, and the figures that it showed."""

    notebook: str
    title: str
    seconds: float = 0.0  # of all attempts
    attempts: int = 0
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
    paths, pages = _find(only), exercises.notebooks().parent / "runs"
    try:
        if report is not None:
            report.open("a").close()  # find out now, rather than after minutes
        pages.mkdir(exist_ok=True)
        for old in pages.glob("*.html"):
            old.unlink()
        database()  # holds the embedded server until the last kernel is gone: it starts once
        results = _execute_all(paths, pages)
        (pages / "index.html").write_text(_index(results), "utf-8")
        if report is not None:
            data = {"python": sys.version.split()[0], "notebooks": [asdict(r) for r in results]}
            report.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise LabError(
            f"{error.filename} cannot be written: {error.strerror}. Expected an existing "
            "directory with room, in which you may write."
        ) from None
    _print_scoreboard(results)
    print(f"\nAs pages: {pages / 'index.html'}")
    return 0 if all(result.verdict.startswith("✔") for result in results) else 1


def _find(only: Sequence[str]) -> list[Path]:
    paths = sorted(exercises.notebooks().glob("[0-9][0-9]_*.ipynb"))
    unknown = [start for start in only if not any(p.name.startswith(start) for p in paths)]
    if unknown or not paths:
        known = ", ".join(path.stem for path in paths) or "none is in this checkout"
        raise LabError(f"There is no notebook {' '.join(unknown)}. Expected one of: {known}.")
    return [path for path in paths if not only or path.name.startswith(tuple(only))]


def _execute_all(paths: Sequence[Path], pages: Path) -> list[Result]:
    fields = ("{task.fields[name]}", "{task.description}")
    name, step = (TextColumn(text, markup=False) for text in fields)
    console, results = Console(stderr=True, soft_wrap=True, **PLAIN), []
    bar = Progress(name, BarColumn(12), TimeElapsedColumn(), step, console=console, transient=True)
    bar.disable = not console.is_terminal
    with bar:
        for path in paths:
            result, notebook = _execute(path, bar)
            page = _page(notebook, [path.stem for path in paths])
            (pages / f"{path.stem}.html").write_text(page, "utf-8")
            console.print(f"{path.stem} … {result.seconds:.0f} s, {result.verdict}")
            results.append(result)
    return results


def _execute(path: Path, bar: Progress) -> tuple[Result, NotebookNode]:
    """Execute a copy of a notebook; once more if it is inconclusive."""
    read: Callable[..., NotebookNode] = nbformat.read
    try:
        source = read(path, as_version=4)
    except ValueError:
        raise LabError(f"{path.name} is no notebook. Expected JSON: restore it.") from None
    step = title = next((h[0] for cell in source.cells if (h := _headings(cell))), path.stem)
    source.metadata.title = title
    task = bar.add_task(step[:25], total=len(source.cells), name=path.stem)
    started = time.monotonic()

    def on_cell(cell: NotebookNode, cell_index: int) -> None:
        nonlocal step
        step = [step, *_headings(cell)][-1]
        bar.update(task, completed=cell_index, description=step[:25])

    for attempt in (1, 2):
        notebook, result = copy.deepcopy(source), Result(path.stem, title, attempts=attempt)
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                runner.run(_in_a_kernel(notebook, path.parent, on_cell))
        except Exception as error:
            result.error = f"In step “{step}”: {_explained(error)}"
        _collect(notebook, result)
        if result.verdict != VERDICT[None]:
            break
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


def _collect(notebook: NotebookNode, result: Result) -> None:
    """Take the figures from the outputs' metadata: see `labkit.display.show`."""

    def plain(run: Figures) -> Figures:
        # Jupyter's messages are JSON, which knows no NaN: on its way here it became a string.
        return {k: None if k != "name" and v in ("nan", "inf") else v for k, v in run.items()}

    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        data = output.get("metadata", {}).get("labkit", {})
        result.runs += [plain(data["run"])] if "run" in data else []
        result.pairs += [[plain(run) for run in data["pair"]]] if "pair" in data else []
        result.claims += data.get("claims", ())


def _print_scoreboard(results: Sequence[Result]) -> None:
    console = Console(**PLAIN)
    for result in results:
        console.print(f"\n{result.notebook}: {result.verdict}", style="bold")
        pairs = Table("before → after", "p50 (ms)", "p99 (ms)", "max (ms)", "stalls", box=SIMPLE)
        for pair in result.pairs:
            times = [
                " → ".join("none" if run[key] is None else ms(run[key]) for run in pair)
                for key in ("p50_ms", "p99_ms", "max_ms")
            ]
            name, stalls = (" → ".join(str(run[key]) for run in pair) for key in ("name", "stalls"))
            pairs.add_row(name, *times, stalls)
        claims = Table("verdict", "claim", "figure", box=SIMPLE)
        for claim in result.claims:
            claims.add_row(VERDICT[claim["held"]], claim["claim"], claim["figure"])
        console.print(*(table for table in (pairs, claims) if table.row_count), end="")
        if result.error is not None:
            console.print(result.error, soft_wrap=True)
        if result.verdict == VERDICT[None]:
            console.print("inconclusive: this machine is busy; run it again when it is quiet")


def _page(notebook: NotebookNode, pages: Sequence[str]) -> str:
    def link(found: re.Match[str]) -> str:
        page = found[1].removesuffix(".ipynb")
        return f'href="{page}.html' if page in pages else f'href="../notebooks/{found[1]}'

    exporter: Any = HTMLExporter  # which has no types
    html, _ = exporter(template_name="lab", raw_template=PAGE).from_notebook_node(notebook)
    # Where it lies on this machine is nobody's business; inside a picture it would be chance.
    roots = (exercises.notebooks().parent, sys.prefix)
    here = "|".join(re.escape(f"{root}{os.sep}") for root in roots)
    html = re.sub(rf"(?<![\w+/])({here})", "", html)
    return re.sub(r'href="(?!index\.html)([\w.-]+\.\w+)', link, html)


def _index(results: Sequence[Result]) -> str:
    head = ("notebook", "verdict", "claims that held", "time")
    rows = ""
    for result in results:
        held = sum(claim["held"] is True for claim in result.claims)
        rows += (
            f'<tr><th scope="row"><a href="{result.notebook}.html">{escape(result.title)}</a></th>'
            f"<td>{result.verdict}</td><td>{held} of {len(result.claims)}</td>"
            f"<td>{result.seconds:.0f} s</td></tr>\n"
        )
    titles = "".join(f'<th scope="col">{title}</th>' for title in head)
    return INDEX.replace("HEAD", titles).replace("ROWS", rows)
