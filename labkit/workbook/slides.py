"""`python -m labkit slides`: the notebooks' charts for the wall, the cheat sheet for the table.

What a slide says stands in FACILITATOR.md, in its table of slides and under "What to say". The
question and the chart stand in the notebook. reveal.js shows them, and comes with the slides.
"""

from __future__ import annotations

import base64
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat

from labkit import exercises
from labkit.errors import LabError
from labkit.workbook import printed
from labkit.workbook.pages import anchor, publish, refuse_others_files, run_sphinx
from labkit.workbook.report import headings

# Of the guide: what to predict, the heading that the chart stands under, and one sentence.
_ROW = re.compile(r"^\| (.+) \| \[.+\]\((\d\d_\w+\.ipynb)#(.+)\) \| (.+) \|$", re.MULTILINE)
_SAY = re.compile(r"^- \*\*(.+?)\.\*\* (.+)$", re.MULTILINE)
_QUESTION = re.compile(r"^# (.+)$.*?^\*\*The question\.\*\* (.+?)$", re.MULTILINE | re.DOTALL)
# A browser without a window draws only one of the frames that reveal.js waits for before it prints.
_PRINT = 'if (location.search == "?print-pdf") requestAnimationFrame = go => setTimeout(go, 10)'
_CONF: dict[str, Any] = {
    "extensions": ["myst_parser", "sphinx_revealjs"],
    "language": "en",
    "html_copy_source": False,
    "revealjs_html_theme": "revealjs-simple",  # the other one forbids to zoom
    "revealjs_style_theme": "white",
    "revealjs_static_path": [str(Path(__file__).with_name("slides.css"))],
    "revealjs_css_files": ["slides.css"],
    "revealjs_js_files": [(None, {"body": _PRINT})],
    "revealjs_script_plugins": [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}],
    "revealjs_script_conf": {"width": 1280, "height": 720, "center": False, "hash": True}
    | {"slideNumber": "c/t", "transition": "none", "pdfMaxPagesPerSlide": 1},
}


def slides(directory: Path) -> None:
    """Make the slides, `index.html`, and the sheet, `cheatsheet.html`; both as PDF, too.

    Args:
        directory: A new one, an empty one, or one with earlier slides.

    Raises:
        LabError: The directory has something else in it, or a notebook has no such chart, or
            FACILITATOR.md says nothing about it.
        OSError: The directory cannot be written.
    """
    refuse_others_files(directory, "slides.css")
    with tempfile.TemporaryDirectory() as place:
        source, built = Path(place, "source"), Path(place, "built")
        source.mkdir()
        _write(source)
        conf = [f"{name} = {value!r}\n" for name, value in _CONF.items()]
        (source / "conf.py").write_text("".join(conf), "utf-8")
        if warnings := run_sphinx(place, "-b", "revealjs"):
            raise LabError(f"Sphinx cannot read FACILITATOR.md's slides: {warnings}")
        publish(built, directory)
    printed.write_sheet(directory / "cheatsheet.html")
    print(f"Open {directory / 'index.html'}: the arrow keys move on, S opens the speaker's notes.")
    address = directory.resolve().as_uri()
    pages = {"slides.pdf": "index.html?print-pdf", "cheatsheet.pdf": "cheatsheet.html"}
    printed.print_pages({directory / pdf: f"{address}/{page}" for pdf, page in pages.items()})


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
        if not (asked and told):
            raise LabError(
                f"There can be no slide for {notebook}. Expected “**The question.**” in its first "
                f"cell, and a line with **{number}.** under “What to say” in FACILITATOR.md. "
                "To do: restore them."
            )
        title, question = asked.groups()
        alt, png = _chart(cells, heading, notebook)
        (source / f"{number}.png").write_bytes(png)
        deck += f"\n## {title}\n\n{question}\n\n> **Predict.** {predict}\n"
        deck += _notes(f"Then: {alt}")
        deck += f"\n## {sentence}\n\n```{{image}} {number}.png\n:class: r-stretch\n"
        deck += f":alt: {json.dumps(alt, ensure_ascii=False)}\n```\n"
        deck += _notes(told)
    (source / "index.md").write_text(deck, "utf-8")


def _notes(text: str) -> str:
    return f"\n```{{revealjs-notes}}\n{text}\n```\n"


def _chart(cells: list[Any], heading: str, notebook: str) -> tuple[str, bytes]:
    """The text and the picture of the chart that lays the prediction over a result."""
    here = ""
    for cell in cells:
        here = [here, *headings(cell)][-1]
        if anchor(here) == heading and "predicted=predicted" in cell.source:
            for output in cell.get("outputs", ()):
                if png := output.get("data", {}).get("image/png"):
                    return output.metadata["image/png"]["alt"], base64.b64decode(png)
    raise LabError(
        f"{notebook} has no chart with a prediction under {heading.replace('-', ' ')!r}. Expected "
        "the notebook as it is committed, with its outputs. To do: restore it."
    )
