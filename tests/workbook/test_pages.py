"""The site: of the committed notebooks as it is published, and its first page of other runs."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
import yaml
from nbformat import from_dict
from playwright.sync_api import Browser, Page, expect

from labkit import LabError, exercises
from labkit.workbook.pages import overview, pages, write
from labkit.workbook.report import Result, read, results_of
from tests.browser import in_a_browser, serious

ROOT = exercises.notebooks().parent
THEMES = "light", "dark"


@dataclass
class Html(HTMLParser):
    """What a page links to, shows and loads."""

    path: Path
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    pictures: list[str | None] = field(default_factory=list)  # their texts

    def __post_init__(self) -> None:
        super().__init__()
        self.text = self.path.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found["id"]} if "id" in found else set()
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        self.loaded += [found["src"]] if "src" in found else []
        self.loaded += [found["href"]] if tag == "link" else []
        if tag == "img":
            self.pictures.append(found.get("alt"))
        if tag == "svg" and found.get("role") == "img":
            self.pictures.append(found.get("aria-label"))


@dataclass
class Site:
    """The site of the committed notebooks."""

    root: Path
    warnings: str
    pages: dict[str, Html]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    root, notebooks = tmp_path_factory.mktemp("site") / "new", read()
    warnings = write(notebooks, overview(results_of(notebooks)), root)
    pages = {page.relative_to(root).as_posix(): Html(page) for page in root.rglob("*.html")}
    return Site(root, warnings, pages)


def test_each_committed_notebook_and_each_page_beside_it_is_a_page_without_a_warning(
    site: Site,
) -> None:
    assert "" == site.warnings
    beside = [*exercises.notebooks().glob("*.ipynb"), *exercises.notebooks().glob("*.md")]
    assert {f"{path.stem}.html" for path in beside} | {"index.html", "search.html"} <= {*site.pages}
    assert not [*site.root.rglob("*.ipynb"), *site.root.rglob("*.doctree")]


def test_every_link_leads_to_a_page_and_to_a_place_in_it(site: Site) -> None:
    dead, seen = [], 0
    for name, page in site.pages.items():
        for link in page.links:
            address, anchor = urldefrag(unquote(link))
            if re.match(r"https?://", address):
                continue
            target = (site.root / name).parent / address if address else site.root / name
            found = site.pages.get(target.resolve().relative_to(site.root.resolve()).as_posix())
            seen += 1
            if found is None or (anchor and anchor not in found.anchors):
                dead.append(f"{name}: {link}")
    assert [] == dead
    assert seen > 1000


def test_a_notebook_links_to_the_pages_of_others_and_of_the_code_that_it_names(site: Site) -> None:
    links = site.pages["10_your_own_service.html"].links
    assert {"00_start_here.html", "web_service/app.py.html", "web_service/sick.html"} <= {*links}
    assert "labkit/probe/pool.py.html" in links
    code = re.sub("<[^>]+>", "", site.pages["legacy/audit.py.html"].text)
    assert "def audit(" in code


def test_each_page_has_the_way_on_the_contents_and_a_copy_button(site: Site) -> None:
    page = site.pages["01_detect_loop_blocking.html"]
    for told in 'class="next-page" href="02_', 'class="prev-page" href="00_', "On this page":
        assert told in page.text
    assert "#the-symptom" in page.links
    assert "_static/copybutton.js" in " ".join(page.loaded)


def test_nothing_is_loaded_from_the_network(site: Site) -> None:
    loaded = [(name, one) for name, page in site.pages.items() for one in page.loaded]
    assert [] == [it for it in loaded if not it[1].startswith("data:") and ":" in it[1]]
    for style in site.root.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", style.read_text("utf-8"))


def test_no_page_and_no_index_names_a_path_that_a_notebook_has_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "base_prefix", os.path.join(os.sep, "opt", "R&D"))
    [(path, notebook)] = read(["01"]).items()
    bases = str(ROOT), sys.base_prefix, os.path.realpath(tempfile.gettempdir())
    for number, base in enumerate(bases):
        shown = os.path.join(base, f"shown{number}.py")
        data = {"text/plain": shown, "text/html": f"<p>{escape(shown)}</p>"}
        kinds: list[dict[str, Any]] = [
            {
                "output_type": "stream",
                "name": "stdout",
                "text": f"{shown!r}\n{shown}\nFile \x1b[32m{shown}:7\x1b[39m, in <module>\n",
            },
            {"output_type": "display_data", "metadata": {}, "data": data},
        ]
        notebook.cells[-2].outputs += map(from_dict, kinds)
    write({path: notebook}, "# First\n", tmp_path / "runs")
    for file in (tmp_path / "runs").glob("*.*"):
        text = re.sub('"data:[^"]*"', "", file.read_text("utf-8"))
        for told in (ROOT, "R&D", "R&amp;D", tempfile.gettempdir()):
            assert f"{told}{os.sep}" not in text
    page = (tmp_path / "runs" / f"{path.stem}.html").read_text("utf-8")
    assert all(f"shown{number}.py" in page for number in range(3))


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(LabError, match="has something else in it"):
        pages(tmp_path)
    assert ["index.html"] == [file.name for file in tmp_path.iterdir()]


def test_a_place_that_cannot_be_written_is_found_out_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    begun: list[object] = []
    monkeypatch.setattr("labkit.workbook.pages.write", lambda *work: begun.append(work))
    with pytest.raises(OSError, match="new"):
        pages(tmp_path / "file" / "new")
    assert begun == []


def test_every_picture_has_the_text_that_the_notebook_gave_it(site: Site) -> None:
    drawn = 0
    for path, notebook in read().items():
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        texts = [
            o.metadata["image/png"]["alt"] for o in outputs if "image/png" in o.get("data", {})
        ]
        assert texts == site.pages[f"{path.stem}.html"].pictures
        drawn += len(texts)
    assert drawn > 50
    [text] = site.pages["index.html"].pictures
    told = r"Detect what blocks the loop: ✔ held \(\d+ of \d+ claims\)\. legacy → repaired: \d"
    assert re.search(told, text or "")
    assert all(text for page in site.pages.values() for text in page.pictures)


def ran(name: str, *times: float | None, held: bool = True) -> Result:
    """A notebook with one repair."""
    pairs = [[{"name": f"run {n}", "p99_ms": time} for n, time in enumerate(times)]]
    claims = [
        {"claim": "c", "held": held, "figure": ""},
        {"claim": "d", "held": True, "figure": ""},
    ]
    return Result(name, name.title(), pairs=pairs if times else [], claims=claims)


def test_the_first_page_sets_this_machines_figures_beside_the_committed_ones() -> None:
    results = [ran("a", 118.0, 2.0, held=False), ran("b", 10.0, 9.9), ran("c"), ran("d", 5.0, None)]
    committed = [ran("a", 100.0, 4.0), ran("b", 8.0, 16.0), ran("c"), ran("d", 5.0, 1.0)]
    page = overview(results, committed)
    assert "**In 3 of 4 notebooks every claim held.**" in page
    rows = [row for row in page.splitlines() if row.startswith("| [")]
    pair = "run 0 → run 1: "
    assert [
        f"| [A](a.ipynb) | ✘ broken (1 of 2 claims) | {pair}118 → 2.0, 59× lower "
        f"| {pair}100 → 4.0, 25× lower |",
        f"| [B](b.ipynb) | ✔ held (2 of 2 claims) | {pair}10.0 → 9.9, hardly changed: 1.0× "
        f"| {pair}8.0 → 16.0, 2.0× higher |",
        "| [C](c.ipynb) | ✔ held (2 of 2 claims) |  |  |",
        f"| [D](d.ipynb) | ✔ held (2 of 2 claims) | {pair}5.0 → none, none completed "
        f"| {pair}5.0 → 1.0, 5.0× lower |",
    ] == rows


def test_a_page_of_one_notebook_leads_to_the_others_where_they_lie(tmp_path: Path) -> None:
    earlier = tmp_path / "runs" / "02_set_up_the_pool.html"
    earlier.parent.mkdir()
    earlier.write_text("of an earlier run")
    notebooks = read(["01"])
    assert "" == write(notebooks, overview(results_of(notebooks)), tmp_path / "runs")
    pages = [Html(page) for page in (tmp_path / "runs").glob("*.html")]
    links = {urldefrag(link)[0] for page in pages for link in page.links}
    assert {"../notebooks/00_start_here.ipynb", "02_set_up_the_pool.html"} <= links
    assert "../notebooks/02_set_up_the_pool.ipynb" not in links
    assert "of an earlier run" == earlier.read_text()
    assert not (tmp_path / "runs" / "00_start_here.html").exists()


def test_the_workflow_publishes_what_the_documented_command_makes() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text("utf-8"))
    steps = workflow["jobs"]["publish"]["steps"]
    install, command = [step["run"] for step in steps if "run" in step]
    assert f"\n{install} && " in (ROOT / "README.md").read_text("utf-8")
    assert f"\n`{command}` makes the site" in (ROOT / ".github/CONTRIBUTING.md").read_text("utf-8")
    assert command.split()[-1] in [step.get("with", {}).get("path") for step in steps]


@pytest.fixture(params=THEMES)
def tab(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a browser without a network, whose console tells no error."""
    told: list[str] = []
    with browser.new_context(offline=True, color_scheme=request.param) as context:
        tab = context.new_page()
        tab.on("console", lambda it: told.append(it.text) if it.type == "error" else None)
        tab.on("pageerror", lambda error: told.append(str(error)))
        yield tab
    assert [] == told


@in_a_browser
def test_a_search_from_the_disk_finds_the_notebook(site: Site, tab: Page) -> None:
    tab.goto((site.root / "index.html").as_uri())
    tab.get_by_role("textbox", name="Search").fill("coordinated omission")
    tab.keyboard.press("Enter")
    found = tab.locator("#search-results a")
    expect(found.first).to_be_visible()
    assert "00_start_here.html" in " ".join(a.get_attribute("href") or "" for a in found.all())


@in_a_browser
def test_a_reader_changes_the_theme_and_copies_code(site: Site, tab: Page) -> None:
    tab.goto((site.root / "01_detect_loop_blocking.html").as_uri())
    ground = "getComputedStyle(document.body).backgroundColor"
    colours = {tab.evaluate(ground)}
    for _ in THEMES:
        tab.locator(".theme-toggle-content button").click()
        colours.add(tab.evaluate(ground))
    assert 2 == len(colours)
    button = tab.locator(".cell_input button.copybtn").first
    button.click()
    expect(button).to_have_class(re.compile("success"))
    width: Any = tab.locator("article p").first.evaluate("p => p.clientWidth / 16")
    assert width < 50  # of the letters' height: a readable line


@in_a_browser
@pytest.mark.parametrize("name", ["index", "00_start_here", "06_verify_under_load", "web_service"])
def test_axe_finds_nothing_serious(site: Site, tab: Page, name: str) -> None:
    tab.goto((site.root / f"{name}.html").as_uri())
    assert [] == serious(tab)
