"""The workbook as a learner meets it: JupyterLab, in a browser."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from labkit import exercises
from tests.browser import in_a_browser, serious

pytestmark = [
    pytest.mark.usefixtures("dsn"),  # keeps the server running between the kernels
    in_a_browser,
    pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process"),
]
ROOT, NAME = exercises.notebooks().parent, "01_detect_loop_blocking.ipynb"
# What a browser shows does not depend on how many cells there are, and all of 01 takes a minute
# (`test_notebooks` executes it). So it has only these here: one scenario, measured and drawn, and
# the exercise.
PARTS = (
    "import labkit as lab",
    "dsn = lab.database()",
    "async def legacy(",
    "the p99 of the lookups",
    "before = lab.measure(legacy)",
    "lab.timeline(before",
    "lab.stalls(before)",
    'lab.Exercise("report")',
    "report.check(",
    "# report.hint()",
)
CHARTS = ".jp-OutputArea img"
# All cells are in the page, not only those that can be seen just now.
SETTINGS = {"notebook-extension/tracker": '{"windowingMode": "none"}'}
WATCH = r"""() => {
    window.progress = []
    new MutationObserver(changes => changes.forEach(change => change.addedNodes.forEach(node => {
        const line = /(.+) [█░]{20} ([\d.]+) s, loop lag (\d+) ms/.exec(node.textContent)
        if (line) window.progress.push([line[1], Number(line[2]), Number(line[3])])
    }))).observe(document.querySelector(".jp-Notebook"), {childList: true, subtree: true})
}"""
CORNER = """image => {
    const canvas = document.createElement("canvas")
    const context = canvas.getContext("2d")
    context.drawImage(image, 0, 0)
    return [...context.getImageData(0, 0, 1, 1).data]
}"""


@dataclass
class Lab:
    """JupyterLab with some of notebook 01, all of it executed."""

    page: Page
    checkout: Path
    untouched: dict[str, bytes]  # the workbook's own notebooks
    told: list[str] = field(default_factory=list)  # by the browser's console
    progress: list[tuple[str, float, int]] = field(default_factory=list)  # name, s, lag in ms

    def cell(self, source: str) -> Locator:
        """The code cell with that in it."""
        return self.page.locator(".jp-CodeCell").filter(
            has=self.page.locator(".jp-InputArea", has_text=source)
        )

    def write(self, cell: Locator, source: str) -> None:
        """Replace what is in a cell."""
        cell.locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+a")
        self.page.keyboard.insert_text(source)

    def start(self, cell: Locator) -> None:
        """Run a cell, and do not wait for it."""
        cell.locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+Enter")
        expect(cell.locator(".jp-InputPrompt")).to_have_text("[*]:")

    def run(self, cell: Locator) -> str:
        """Run a cell to its end; return what it shows."""
        before = cell.locator(".jp-InputPrompt").inner_text()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("ControlOrMeta+Enter")
        expect(cell.locator(".jp-InputPrompt")).not_to_have_text(before)
        self.wait(cell)
        return cell.locator(".jp-OutputArea").inner_text()

    def wait(self, cell: Locator, seconds: float = 60) -> None:
        """Until a cell has been run."""
        prompt = cell.locator(".jp-InputPrompt")
        expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=1e3 * seconds)

    def choose(self, *path: str) -> None:
        """Something in the menus."""
        items = self.page.locator(".lm-MenuBar-item, .lm-Menu-item")
        for name in path:
            items.filter(has_text=re.compile(rf"^\s*{name}")).first.click()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of its own, for a learner's copy to lie beside the notebooks."""
    root = tmp_path_factory.mktemp("checkout")
    for part in "labkit", "notebooks":
        left_out = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
        shutil.copytree(ROOT / part, root / part, ignore=left_out)
    short = read(ROOT / "notebooks" / NAME)
    code = [cell for cell in short.cells if cell.cell_type == "code"]
    short.cells = [next(cell for cell in code if part in cell.source) for part in PARTS]
    write(short, root / "notebooks" / NAME)
    return root


@pytest.fixture(scope="module")
def address(checkout: Path) -> Iterator[str]:
    """Where `labkit start` serves that checkout."""
    config = checkout / "jupyter"
    for name, setting in SETTINGS.items():
        path = config / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(setting)
    own = {name: str(config) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    # The checkout's own labkit, for the server by its directory, for the kernels by the path.
    at: dict[str, Any] = {"cwd": checkout, "env": os.environ | own | {"PYTHONPATH": str(checkout)}}
    command = [sys.executable, "-m", "labkit", "start", "--no-browser"]
    log = checkout / "log"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, **at) as server:
        try:
            wanted, deadline = r"http://127\S+/lab/tree/00_start_here\.ipynb\?token=\w+", 60
            until = time.monotonic() + deadline
            while not (found := re.search(wanted, log.read_text("utf-8"))):
                assert server.poll() is None, log.read_text("utf-8")
                assert time.monotonic() < until
                time.sleep(0.1)
            yield found[0]
        finally:
            for _ in range(3):  # one that comes while tornado reads a request is only logged
                server.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    server.wait(10)
                    break
            else:
                server.kill()


@pytest.fixture(scope="module")
def lab(browser: Browser, checkout: Path, address: str) -> Lab:
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    own = {path.name: path.read_bytes() for path in (checkout / "notebooks").glob("*.ipynb")}
    lab = Lab(page, checkout, own)
    page.on("console", lambda told: lab.told.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: lab.told.append(str(error)))
    page.goto(address.replace("00_start_here.ipynb", NAME))
    expect(lab.cell("report.check")).to_be_visible(timeout=60_000)
    expect(page.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle")
    lab.choose("Edit", "Clear Outputs of All Cells")
    expect(page.locator(CHARTS)).to_have_count(0)
    page.evaluate(WATCH)
    lab.choose("Run", "Run All Cells")
    lab.wait(lab.cell("# report.hint()"))
    lab.progress = page.evaluate("window.progress")
    return lab


@pytest.fixture(autouse=True)
def quiet_console(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test makes the browser's console tell an error."""
    yield
    if "lab" in request.fixturenames:
        lab: Lab = request.getfixturevalue("lab")
        assert [] == lab.told


def test_all_cells_run_and_the_chart_is_drawn(lab: Lab) -> None:
    errors = lab.page.locator("[data-mime-type='application/vnd.jupyter.error']")
    assert [] == errors.all_inner_texts()
    assert [] == lab.page.locator("[data-mime-type$='stderr']").all_inner_texts()
    [width] = lab.page.locator(CHARTS).evaluate_all("all => all.map(i => i.naturalWidth)")
    assert width > 1000
    assert "blocked" in lab.cell("lab.stalls(before)").locator(".jp-OutputArea").inner_text()


@pytest.mark.xfail(strict=True, reason="JupyterLab drops it: jupyter/enhancement-proposals#120")
def test_every_chart_has_a_text_that_says_the_same(lab: Lab) -> None:
    for chart in lab.page.locator(CHARTS).all():
        assert re.search(r"\d", chart.get_attribute("alt") or "")


def test_the_progress_line_moves_while_the_scenarios_loop_is_frozen(lab: Lab) -> None:
    legacy = [(seconds, lag) for name, seconds, lag in lab.progress if name == "legacy"]
    assert 10 < len({seconds for seconds, _ in legacy})
    # An audit freezes it for 120 ms; no chart and no line of text could be drawn on that loop.
    # One is told each 100 ms or so, so its turn may come when the audit has just begun.
    assert any(lag > 30 for _, lag in legacy)


def test_an_exercise_goes_from_a_wrong_answer_by_a_hint_and_the_solution_to_a_pass(
    lab: Lab,
) -> None:
    starter, check, hint = map(lab.cell, ("def monthly_orders", "report.check", "report.hint()"))
    assert "not attempted" in check.locator(".jp-OutputArea").inner_text()
    first = 'from legacy import monthly_report\nreport = lab.Exercise("report")\n'
    answer = "async def monthly_orders(pool, customer):\n    return "
    lab.write(starter, f"{first}{answer}monthly_report.monthly_orders(dsn, customer)")
    lab.run(starter)
    assert "not yet: these lines of your report keep the loop's thread" in lab.run(check)
    lab.write(hint, "report.hint()")
    assert "which line holds the loop?" in lab.run(hint)
    lab.write(hint, "report.solution()")
    solution, _, why = lab.run(lab.cell("report.solution()")).partition("Why it works:")
    assert why
    lab.write(starter, first + solution)
    lab.run(starter)
    said = lab.run(check)
    for _ in range(2):  # the notebooks are being executed beside it
        said = lab.run(check) if "inconclusive" in said else said
    assert "pass: 14 reports, all right" in said
    # It is saved in the learner's copy, and the workbook's own stays as it is.
    lab.page.keyboard.press("ControlOrMeta+s")
    expect(lab.page.locator(".jp-mod-dirty")).to_have_count(0)
    assert "asyncio.sleep(0.08)" in (lab.checkout / "my-notebooks" / NAME).read_text("utf-8")
    own = (lab.checkout / "notebooks").glob("*.ipynb")
    assert lab.untouched == {path.name: path.read_bytes() for path in own}


def test_the_stop_button_ends_a_measurement_and_the_next_cell_runs(lab: Lab) -> None:
    measured = lab.cell("before = lab.measure(legacy)")
    lab.start(measured)
    expect(measured.locator(".jp-OutputArea")).to_contain_text(re.compile(r" [01]\.\d s, loop lag"))
    pressed = time.monotonic()
    lab.page.get_by_role("button", name="Interrupt the kernel").click()
    lab.wait(measured)
    assert 5 > time.monotonic() - pressed
    told = measured.locator(".jp-OutputArea").inner_text()
    assert re.search(r"legacy: stopped after [012]\.\d s\s+Stopped: legacy was stopped", told)
    assert "legacy: 402 requests" in lab.run(measured)


def test_a_restarted_kernel_runs_it_again(lab: Lab) -> None:
    chart = lab.cell("lab.timeline(before")
    chart.locator(".cm-content").click()
    lab.choose("Kernel", "Restart Kernel and Run up to Selected")
    lab.page.locator(".jp-Dialog .jp-mod-accept").click()
    position = chart.evaluate(
        "cell => [...document.querySelectorAll('.jp-CodeCell')].indexOf(cell) + 1"
    )
    expect(chart.locator(".jp-InputPrompt")).to_have_text("[*]:")
    expect(chart.locator(".jp-InputPrompt")).to_have_text(f"[{position}]:")
    assert 1 == chart.locator("img").count()


def test_knobs_are_turned_and_measured_by_mouse_and_by_keyboard(lab: Lab, address: str) -> None:
    start = read(ROOT / "notebooks" / "00_start_here.ipynb")
    code = [cell for cell in start.cells if cell.cell_type == "code"]
    parts = "import labkit as lab", "async def lookup(", "async def freezes(", "lab.knobs("
    start.cells = [next(cell for cell in code if part in cell.source) for part in parts]
    for cell in start.cells:
        cell.outputs = []
    write(start, lab.checkout / "my-notebooks" / "knobs.ipynb")
    lab.page.goto(address.replace("00_start_here", "knobs") + "&reset")
    turned = lab.cell("lab.knobs(")
    expect(turned).to_be_visible()
    kernel = lab.page.locator(".jp-Notebook-ExecutionIndicator")
    expect(kernel).to_have_attribute("data-status", "idle")  # else JupyterLab runs nothing
    prompt = turned.locator(".jp-InputPrompt")  # of the last cell
    for _ in range(5):  # now and then it says so too early, and runs nothing, or the first cell
        lab.choose("Run", "Run All Cells")
        with suppress(AssertionError):
            expect(prompt).not_to_have_text(re.compile(r"\[\s*\]"), timeout=5_000)
            break
    picture, told = turned.locator(".widget-html img"), turned.locator(".widget-html p")
    handle = turned.get_by_role("slider", name="freeze (ms)")
    measure = turned.get_by_role("button", name="Measure")

    def shows(pattern: str) -> None:
        expect(picture).to_have_attribute("alt", re.compile(pattern))

    shows(
        r"110 by pencil; [\d.]+ measured\. The knobs: freeze \(ms\) 120.*lookups per second 200\.$"
    )
    expect(told).to_have_text("Turn a knob, look at the prediction, and measure.")
    for theme in "Dark", "Light":
        lab.choose("Settings", "Theme", f"JupyterLab {theme}$")
        light = str(theme == "Light").lower()
        expect(lab.page.locator("body")).to_have_attribute("data-jp-theme-light", light)
        assert [] == serious(lab.page, within=".jp-OutputArea-output")
    handle.focus()
    lab.page.keyboard.press("ArrowRight")
    shows(r"120 by pencil; not measured yet.* freeze \(ms\) 130.* Before: 110 by pencil; [\d.]+ m")
    expect(turned.get_by_role("alert")).to_contain_text("120 by pencil; not measured yet")
    measure.focus()
    lab.page.keyboard.press("Space")
    expect(told).to_contain_text("loop lag")
    shows(r"120 by pencil; [\d.]+ measured.* Before: 110 by pencil")
    expect(measure).to_be_focused()
    box = handle.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    lab.page.mouse.move(x, y)
    lab.page.mouse.down()
    lab.page.mouse.move(x - 500, y, steps=5)
    lab.page.mouse.up()
    shows(r": 0 by pencil; not measured yet.* freeze \(ms\) 10,.* Before: 120 by pencil")
    measure.click()
    expect(told).to_contain_text(re.compile(r" [01]\.\d s, loop lag"))
    pressed = time.monotonic()
    lab.page.get_by_role("button", name="Interrupt the kernel").click()
    expect(told).to_have_text("Stopped: freezes was stopped.")
    assert 5 > time.monotonic() - pressed
    measure.click()
    shows(r": 0 by pencil; [\d.]+ measured.* freeze \(ms\) 10,.* Before: 120 by pencil")


def test_in_a_dark_theme_charts_keep_their_white_card_and_words_their_contrast(
    lab: Lab, address: str
) -> None:
    committed = read(ROOT / "notebooks" / NAME)  # with every kind of output there is
    write(committed, lab.checkout / "my-notebooks" / "committed.ipynb")
    lab.page.goto(address.replace("00_start_here", "committed") + "&reset")  # no other tab
    outputs = [output for cell in committed.cells for output in cell.get("outputs", ())]
    drawn = sum("image/png" in output.get("data", {}) for output in outputs)
    expect(lab.page.locator(CHARTS)).to_have_count(drawn)
    lab.choose("Settings", "Theme", "JupyterLab Dark")
    expect(lab.page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    for chart in lab.page.locator(CHARTS).all():
        assert [255, 255, 255, 255] == chart.evaluate(CORNER)
    assert [] == serious(lab.page, within=".jp-OutputArea-output", rule="color-contrast")


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def write(notebook: Any, path: Path) -> None:
    nbformat.write(notebook, path)  # type: ignore[no-untyped-call]
