"""What goes onto the wall and onto the tables: the slides and the cheat sheet."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from playwright.sync_api import Browser, Page

from labkit import LabError, exercises
from labkit.workbook import slides as deck_of
from labkit.workbook.slides import print_page, slides
from tests.browser import in_a_browser, serious

NOTEBOOKS = exercises.notebooks()
NAMES = sorted(path.name for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
SLIDES = 1 + 2 * len(NAMES)


class Made(NamedTuple):
    """What the command left, and what it said."""

    place: Path
    said: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    place = tmp_path_factory.mktemp("wall") / "deck"
    command = [sys.executable, "-m", "labkit", "slides", str(place)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=180)
    assert (0, "") == (done.returncode, done.stderr)
    return Made(place, done.stdout)


class Slide(NamedTuple):
    heading: str
    text: str
    alt: str
    notes: str


def read(made: Made) -> list[Slide]:
    """The slides, in their order."""
    html = (made.place / "index.html").read_text("utf-8")
    found = []
    for part in html.split("<h")[1:]:
        heading, _, rest = re.sub(r"^\d>|^ead>.*", "", part, flags=re.DOTALL).partition("</h")
        if rest:
            alt = "".join(re.findall(r'<img alt="(.*?)"', rest))
            notes = "".join(re.findall(r'<aside class="notes">(.*?)</aside>', rest, re.DOTALL))
            text = re.sub(r"<aside.*?</aside>|<script.*?</script>|<.*?>", "", rest, flags=re.DOTALL)
            found.append(Slide(*(unescape(it).strip() for it in (heading, text, alt, notes))))
    return found


def test_each_notebook_has_its_question_and_only_then_its_chart(made: Made) -> None:
    first, *rest = read(made)
    assert SLIDES == 1 + len(rest)
    assert "The asyncpg stall workbook" == first.heading
    for name, asked, shown in zip(NAMES, rest[::2], rest[1::2], strict=True):
        cells = nbformat.read(NOTEBOOKS / name, as_version=4).cells  # type: ignore[no-untyped-call]
        assert f"# {asked.heading}\n" in cells[0].source
        assert "Predict." in asked.text
        assert "" == asked.alt
        alts = [
            output.metadata["image/png"]["alt"]
            for cell in cells
            if cell.cell_type == "code"
            for output in cell.outputs
            if "image/png" in output.get("data", {})
        ]
        assert shown.alt in alts


def test_what_to_say_are_the_speakers_notes(made: Made) -> None:
    guide = (NOTEBOOKS / "FACILITATOR.md").read_text("utf-8")
    say = dict(re.findall(r"^- \*\*(.+?)\.\*\* (.+)$", guide, re.MULTILINE))

    def plain(text: str) -> str:
        return re.sub("[*`\"'\u2018\u2019\u201c\u201d]", "", text)

    first, *rest = read(made)
    assert plain(say["At the start"]) == plain(first.notes)
    for name, asked, shown in zip(NAMES, rest[::2], rest[1::2], strict=True):
        assert plain(say[name[:2]]) == plain(shown.notes)
        assert plain(f"Then: {shown.alt}") == plain(asked.notes)


def test_it_leaves_only_what_a_browser_needs_and_no_path_of_where_it_was_made(made: Made) -> None:
    left = {file.name for file in made.place.iterdir() if file.suffix != ".pdf"}
    assert {"cheatsheet.html", "index.html", "_static", "_images"} == left
    for file in made.place.rglob("*"):
        if file.suffix in (".html", ".css", ".js", ".json"):
            assert tempfile.gettempdir() + os.sep not in file.read_text("utf-8")


def test_earlier_slides_are_made_anew_and_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(LabError, match="has something else in it"):
        slides(tmp_path)
    assert ["thesis.txt"] == [file.name for file in tmp_path.iterdir()]


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebooks, to be changed."""
    copy = tmp_path / "notebooks"
    copy.mkdir()
    for path in NOTEBOOKS.glob("*.*"):
        shutil.copy(path, copy)
    monkeypatch.setattr(exercises, "notebooks", lambda: copy)
    return copy


def test_a_guide_that_says_nothing_about_a_notebook_is_told(copy: Path) -> None:
    guide = (copy / "FACILITATOR.md").read_text("utf-8")
    (copy / "FACILITATOR.md").write_text(guide.replace("- **03.** ", "- **3.** "), "utf-8")
    with pytest.raises(LabError, match=rf"no slide for {NAMES[3]}\. .* a line with \*\*03\.\*\*"):
        slides(copy.parent / "deck")


def test_a_notebook_without_its_chart_is_named(copy: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(copy / NAMES[1], as_version=4)  # type: ignore[no-untyped-call]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(notebook, copy / NAMES[1])  # type: ignore[no-untyped-call]
    with pytest.raises(
        LabError, match=f"no slide for {NAMES[1]}. .* chart of a prediction under 'The-sym"
    ):
        slides(tmp_path / "deck")
    assert not (tmp_path / "deck").exists()


def test_without_a_browser_it_says_how_to_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(deck_of, "_BROWSERS", ())
    print_page("file:///slides/index.html?print-pdf", tmp_path / "slides.pdf")
    said = "For slides.pdf, open file:///slides/index.html?print-pdf in Chrome, Chromium or Edge"
    assert said in capsys.readouterr().out


def pages_of(pdf: Path) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))


@in_a_browser
def test_the_pdf_has_a_page_for_each_slide_and_the_sheet_is_one_page_of_a4(made: Made) -> None:
    assert SLIDES == pages_of(made.place / "slides.pdf")
    sheet = made.place / "cheatsheet.pdf"
    assert 1 == pages_of(sheet)
    [box] = re.findall(rb"/MediaBox \[0 0 (\d+)[.\d]* (\d+)", sheet.read_bytes())
    assert (841, 594) == (int(box[0]), int(box[1]))  # in points, landscape
    assert f"As PDF: {sheet}" in made.said


@pytest.fixture(params=["light", "dark"])
def deck(request: pytest.FixtureRequest, browser: Browser, made: Made) -> Iterator[Page]:
    """The slides in a browser, which asks nothing of anybody."""
    asked: list[str] = []
    view = {"width": 1280, "height": 720}
    with browser.new_page(color_scheme=request.param, viewport=view) as page:  # type: ignore[arg-type]
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: asked.append(str(error)))
        page.goto((made.place / "index.html").as_uri())
        page.wait_for_function("Reveal.isReady()")
        yield page
    assert [] == [url for url in asked if not url.startswith("file://")]


OVERFLOW = """() => {
    const slide = Reveal.getCurrentSlide()
    const parts = [...slide.children].filter(part => part.tagName != "ASIDE")
    if (parts.some(part => part.naturalWidth === 0)) return "a picture is missing"
    return parts.map(part => part.getBoundingClientRect()).filter(part =>
        part.height == 0 || part.bottom > innerHeight || part.right > innerWidth || part.left < 0
        || part.top < 0).length
}"""


@in_a_browser
def test_the_arrow_key_moves_on_and_every_slide_can_be_read(deck: Page) -> None:
    assert SLIDES == deck.evaluate("Reveal.getTotalSlides()")
    for number in range(SLIDES):
        assert number == deck.evaluate("Reveal.getIndices().h")
        assert 0 == deck.evaluate(OVERFLOW), f"slide {number} overflows"
        assert [] == serious(deck)
        deck.keyboard.press("ArrowRight")


@in_a_browser
def test_the_sheet_can_be_read_on_the_screen_too(deck: Page, made: Made) -> None:
    deck.goto((made.place / "cheatsheet.html").as_uri())
    assert [] == serious(deck)


@in_a_browser
def test_the_speakers_window_opens_from_the_disk_and_follows(deck: Page) -> None:
    with deck.expect_popup() as popup:
        deck.keyboard.press("s")
    notes = popup.value.locator(".speaker-controls-notes .value")
    for key, said in {"ArrowRight": "Then: ", "ArrowLeft": "prediction down"}.items():
        deck.keyboard.press(key)
        notes.get_by_text(said).wait_for()
