"""The pages beside the notebooks: the cheat sheet and the three-minute test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from labkit.exercises import notebooks
from tests.notebooks.test_notebooks import PATHS, headings, read

SHEET, QUIZ = (notebooks() / name for name in ("CHEATSHEET.md", "QUIZ.md"))
LINK = re.compile(r"\]\((\d\d_\w+\.ipynb)#([^)\s]+)\)")


def section(notebook: Path, anchor: str) -> str:
    """What the cells under a heading have put out, and what their charts say."""
    shown, here = "", ""
    for cell in read(notebook).cells:
        if cell.cell_type == "markdown":
            found = re.findall(r"^#+ (.+)", cell.source, re.MULTILINE)
            here = [here, *found][-1].replace(" ", "-")
        elif here == anchor:
            for output in cell.outputs:
                shown += output.get("text", "") or output.get("data", {}).get("text/plain", "")
                shown += "\n"
    return shown


@pytest.mark.parametrize("page", [SHEET, QUIZ], ids=lambda page: page.stem)
def test_each_link_leads_to_a_heading(page: Path) -> None:
    text = page.read_text("utf-8")
    links = LINK.findall(text)
    assert text.count("](") == len(links) > 4
    assert [] == [
        (name, anchor) for name, anchor in links if anchor not in headings(page.parent / name)
    ]


def paragraphs(page: Path) -> list[str]:
    """The rows of the sheet, and the answers of the test: each with its figures and its links."""
    return [part for part in page.read_text("utf-8").split("\n") if LINK.search(part)]


@pytest.mark.parametrize("page", [SHEET, QUIZ], ids=lambda page: page.stem)
def test_each_figure_in_bold_is_one_that_the_linked_cells_have_measured(page: Path) -> None:
    """After the notebooks were executed anew, this says which figures have changed."""
    wrong, figures = [], 0
    for part in paragraphs(page):
        shown = "\n".join(
            section(page.parent / name, anchor) for name, anchor in LINK.findall(part)
        )
        measured = re.findall(r"(?<![\w.])\d[\d,]*\.?\d*", shown)  # not the 99 of p99
        for figure in re.findall(r"\*\*(\d[\d.,]*)\*\*", part):
            figures += 1
            if figure not in {number.rstrip(".,") for number in measured}:
                wrong.append((figure, LINK.findall(part)))
    assert figures > 5
    assert [] == wrong


def test_the_sheet_tells_of_each_notebook_and_each_of_its_terms_once() -> None:
    text = SHEET.read_text("utf-8")
    assert {path.name for path in PATHS} == {name for name, _ in LINK.findall(text)}
    terms = re.findall(r"^- \*\*(.+?)\*\*: ", text, re.MULTILINE)
    assert len(terms) == len({*terms}) > 15
    assert {"open loop", "coordinated omission", "loop lag", "acquire wait"} <= {*terms}


def test_the_test_gives_nothing_away_before_an_answer_is_unfolded() -> None:
    _, *questions = QUIZ.read_text("utf-8").split("\n## ")
    assert 5 == len(questions)
    right = []
    for question in questions:
        asked, _, answer = question.partition("<details><summary>Answer</summary>\n\n")
        assert ["A", "B"] == re.findall(r"^- \*\*([A-Z])\.\*\* \S", asked, re.MULTILINE)
        assert not LINK.search(asked)
        right += re.findall(r"^\*\*([AB])\.\*\* ", answer)
        assert LINK.search(answer)
        assert answer.rstrip().endswith("\n</details>")
    assert 5 == len(right)
    assert {"A", "B"} == {*right}
