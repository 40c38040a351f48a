"""What became of each notebook, and how it is shown: a scoreboard, a page each, and an index."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from nbconvert import HTMLExporter
from nbformat import NotebookNode
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from labkit import exercises
from labkit.measure import ms

VERDICT = {True: "✔ held", False: "✘ broken", None: "? inconclusive"}
PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "emoji": False}  # [1] stays [1]
Figures = dict[str, Any]  # of a run or of a claim

# nbconvert's page for lab, without the scripts that it loads from the network (it opens without),
# with the text that stands for a picture, and with enough contrast to be read.
PAGE = """{% extends 'index.html.j2' %}
{% block html_head_js %}{% endblock %}{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block html_head_css %}<style>
:root { --jp-mirror-editor-number-color: #070; --jp-mirror-editor-comment-color: #366;
 --jp-mirror-editor-operator-color: #71c; --jp-cell-prompt-not-active-opacity: 1 }
.jp-RenderedMarkdown a:any-link { text-decoration: underline }
</style>{% endblock %}
{% block body_header %}{{ super() }}<p><a href="index.html">All notebooks</a></p>{% endblock %}
{% block data_png scoped %}{% set picture = output.metadata.get('image/png', {}) %}
<img src="data:image/png;base64,{{ output.data['image/png'] | escape_html }}"
 alt="{{ picture.get('alt', output.data.get('text/plain', '')) | escape_html }}"
 {% if picture.width %}width="{{ picture.width }}"{% endif %}>{% endblock %}"""
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>The asyncpg stall workbook, executed</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root { color-scheme: light dark }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #121212 } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
th, td { text-align: left; padding: .4rem 1.2rem .4rem 0; border-bottom: 1px solid #8888 }
</style></head><body><main><h1>The asyncpg stall workbook, executed</h1>
<table><caption>Each notebook, and whether what it claims held on this machine</caption>
<tr>HEAD</tr>
ROWS</table></main></body></html>
"""


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


def collect(notebook: NotebookNode, result: Result) -> None:
    """Take the figures from the outputs' metadata: see `labkit.display.show`."""

    def plain(run: Figures) -> Figures:
        # Jupyter's messages are JSON, which knows no NaN: on its way here it became a string.
        return {k: None if k != "name" and v in ("nan", "inf") else v for k, v in run.items()}

    for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
        data = output.get("metadata", {}).get("labkit", {})
        result.runs += [plain(data["run"])] if "run" in data else []
        result.pairs += [[plain(run) for run in data["pair"]]] if "pair" in data else []
        result.claims += data.get("claims", ())


def print_scoreboard(results: Sequence[Result]) -> None:
    """Print each pair and each claim, notebook by notebook, to stdout."""
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


def page(notebook: NotebookNode, pages: Sequence[str]) -> str:
    """An executed notebook as HTML that names no path of this machine.

    Args:
        notebook: With its title in its metadata.
        pages: The names of all notebooks that get a page, for the links between them.
    """

    def link(found: re.Match[str]) -> str:
        stem = found[1].removesuffix(".ipynb")
        return f'href="{stem}.html' if stem in pages else f'href="../notebooks/{found[1]}'

    exporter: Any = HTMLExporter  # which has no types
    html, _ = exporter(template_name="lab", raw_template=PAGE).from_notebook_node(notebook)
    # Where it lies on this machine is nobody's business; inside a picture it would be chance.
    roots = (exercises.notebooks().parent, sys.prefix, tempfile.gettempdir())
    here = "|".join(re.escape(f"{root}{os.sep}") for root in roots)
    html = re.sub(rf"(?<![\w+/])({here})", "", html)
    return re.sub(r'href="(?!index\.html)([\w.-]+\.\w+)', link, html)


def index(results: Sequence[Result]) -> str:
    """The page that links to the notebooks' pages."""
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
