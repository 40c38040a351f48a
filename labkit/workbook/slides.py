"""`python -m labkit slides`: the notebooks' charts for the wall, the cheat sheet for the table.

What a slide says stands in FACILITATOR.md, in its table of slides and under "What to say". The
question and the chart stand in the notebook. reveal.js shows them, and comes with the slides.
"""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from markdown_it import MarkdownIt

from labkit import exercises
from labkit.errors import LabError
from labkit.workbook import refuse_others_files
from labkit.workbook.pages import anchor, build
from labkit.workbook.report import headings

# Of the guide: what to predict, the heading that the chart stands under, and one sentence.
_ROW = re.compile(r"^\| (.+) \| \[.+\]\((\d\d_\w+\.ipynb)#(.+)\) \| (.+) \|$", re.MULTILINE)
_SAY = re.compile(r"^- \*\*(.+?)\.\*\* (.+)$", re.MULTILINE)
_QUESTION = re.compile(r"^# (.+)$.*?^\*\*The question\.\*\* (.+?)$", re.MULTILINE | re.DOTALL)
# Windows and macOS have theirs at these places; Edge comes with Windows.
_BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "microsoft-edge"),
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def slides(directory: Path) -> None:
    """Make the slides, `index.html`, and the sheet, `cheatsheet.html`; both as PDF, too.

    Raises:
        LabError: The directory has something else in it, or a notebook has no such chart, or
            FACILITATOR.md says nothing about it.
    """
    refuse_others_files(directory, "_static/slides.css")
    with tempfile.TemporaryDirectory() as place:
        _write(Path(place))
        options = "-brevealjs", "-Dextensions=myst_parser,sphinx_revealjs"
        if warnings := build(place, directory, *options):
            raise LabError(f"Sphinx cannot read FACILITATOR.md's slides: {warnings}")
    sheet = (exercises.notebooks() / "CHEATSHEET.md").read_text("utf-8")
    body = re.sub('<a href="[^"]*">', "<a>", MarkdownIt().enable("table").render(sheet))  # on paper
    page = Path(__file__).with_name("cheatsheet.html").read_text("utf-8").replace("BODY", body)
    (directory / "cheatsheet.html").write_text(page, "utf-8")
    print(f"Open {directory / 'index.html'}: the arrow keys move on, S opens the speaker's notes.")
    address = directory.resolve().as_uri()
    print_page(f"{address}/index.html?print-pdf", directory / "slides.pdf")
    print_page(f"{address}/cheatsheet.html", directory / "cheatsheet.pdf")


def _write(source: Path) -> None:
    """Write the slides as Sphinx reads them: for each notebook a question, and then a chart."""
    notebooks = exercises.notebooks()
    guide = (notebooks / "FACILITATOR.md").read_text("utf-8")
    say = dict(_SAY.findall(guide))
    deck = "# The asyncpg stall workbook\n\nWrite your prediction down. Then look.\n"
    deck += _notes(say.get("At the start", ""))
    for predict, notebook, heading, sentence in _ROW.findall(guide):
        number = notebook[:2]
        cells = nbformat.read(notebooks / notebook, as_version=4).cells  # type: ignore[no-untyped-call]
        asked, told = _QUESTION.search(cells[0].source), say.get(number)
        if not (asked and told and (chart := _chart(cells, heading))):
            raise LabError(
                f"There can be no slide for {notebook}. Expected “**The question.**” in its first "
                f"cell, the chart of a prediction under {heading!r}, and a line with **{number}.** "
                "under “What to say” in FACILITATOR.md. To do: restore them."
            )
        title, question = asked.groups()
        alt = chart["metadata"]["image/png"]["alt"]
        (source / f"{number}.png").write_bytes(base64.b64decode(chart["data"]["image/png"]))
        deck += f"\n## {title}\n\n{question}\n\n> **Predict.** {predict}\n"
        deck += _notes(f"Then: {alt}")
        deck += f"\n## {sentence}\n\n```{{image}} {number}.png\n:class: r-stretch\n"
        deck += f":alt: {json.dumps(alt, ensure_ascii=False)}\n```\n"
        deck += _notes(told)
    (source / "index.md").write_text(deck, "utf-8")


def _notes(text: str) -> str:
    return f"\n```{{revealjs-notes}}\n{text}\n```\n"


def _chart(cells: list[Any], heading: str) -> dict[str, Any] | None:
    """The output that lays the prediction over a result, with its picture and its text."""
    here = ""
    for cell in cells:
        here = [here, *headings(cell)][-1]
        if anchor(here) == heading and "predicted=predicted" in cell.source:
            for output in cell.get("outputs", ()):
                if "image/png" in output.get("data", {}):
                    return dict(output)
    return None


def print_page(address: str, pdf: Path) -> None:
    """Let a browser that is installed print a page to PDF; say where it is, or how to do it."""
    pdf.unlink(missing_ok=True)
    if browser := next(filter(None, map(shutil.which, _BROWSERS)), None):
        # A profile of its own: a browser that is open already would take the page, and print none.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = [browser, "--headless", f"--user-data-dir={profile}", "--no-first-run"]
            command += ["--no-sandbox"]  # as root there is none, and these pages are ours
            command += ["--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=10000"]
            with contextlib.suppress(subprocess.TimeoutExpired):
                command += [f"--print-to-pdf={pdf.resolve()}", address]
                subprocess.run(command, capture_output=True, timeout=60)
    if pdf.exists():
        print(f"As PDF: {pdf}")
    else:
        print(f"For {pdf.name}, open {address} in Chrome, Chromium or Edge and print it as PDF.")
