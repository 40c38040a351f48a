"""The notebooks as they are committed, and as they run here."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit.exercises import notebooks
from tests.conftest import Beside

ROOT = notebooks().parent
PATHS = sorted(notebooks().glob("[0-9][0-9]_*.ipynb"))
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


@cache
def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def outputs(path: Path) -> list[Any]:
    return [output for cell in code_cells(path) for output in cell.outputs]


@each_notebook
def test_it_was_executed_top_to_bottom_without_an_error(path: Path) -> None:
    counts = [cell.execution_count for cell in code_cells(path)]
    assert list(range(1, len(counts) + 1)) == counts
    assert [] == [output for output in outputs(path) if output.output_type == "error"]


@each_notebook
def test_its_outputs_tell_nothing_of_the_machine(path: Path) -> None:
    text = json.dumps([{**output, "metadata": {}} for output in outputs(path)])
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|usr|opt)/\w", text)
    assert not re.search(r"postgres(ql)?://[^\s:@/\"]+:[^*]", text), "a password"
    assert "Warning:" not in text
    assert not [o for o in outputs(path) if o.output_type == "stream" and o.name == "stderr"]


@each_notebook
def test_it_was_executed_without_the_controls_that_only_a_running_kernel_can_draw(
    path: Path,
) -> None:
    assert "widgets" not in read(path).metadata
    kinds = {kind for output in outputs(path) for kind in output.get("data", {})}
    assert [] == [kind for kind in kinds if "widget-view" in kind]


@each_notebook
def test_every_chart_has_a_text_that_says_the_same(path: Path) -> None:
    charts = [output for output in outputs(path) if "image/png" in output.get("data", {})]
    assert charts
    for chart in charts:
        alternative = chart.metadata["image/png"]["alt"]
        assert chart.data["text/plain"] == alternative
        assert re.search(r"\d", alternative)


@each_notebook
def test_its_cells_are_short_and_its_kernel_is_named(path: Path) -> None:
    assert [] == [c.source for c in code_cells(path) if len(c.source.splitlines()) > 15]
    assert "python3" == read(path).metadata.kernelspec.name


@each_notebook
def test_of_labkit_it_imports_the_face_and_what_people_take_home(path: Path) -> None:
    code = "\n".join(cell.source for cell in code_cells(path))
    found = re.findall(r"^\s*(?:import|from) (labkit\S*(?: as \w+)?)", code, re.MULTILINE)
    taken = {name for name in found if not name.startswith("labkit.probe")}
    assert {"labkit as lab"} == taken, f"a notebook may import these only, and has: {found}"


@each_notebook
def test_it_has_the_shape_that_every_lesson_has(path: Path) -> None:
    prose = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    assert re.match(rf"# {path.name[:2]} · \S", prose[0])
    assert ["question", "What you do", "What you need"] == re.findall(
        r"^\*\*(?:The )?([A-Za-z ]+?)\.\*\*", prose[0], re.MULTILINE
    )
    assert re.search(r"\d+ minutes", prose[0])
    sections = re.findall(r"^## (.+)", "\n".join(prose), re.MULTILINE)
    assert ["Your turn", "In three lines"] == sections[-2:]
    assert "Verify" in sections
    assert 3 == len(re.findall(r"^- ", prose[-1], re.MULTILINE))


def test_beside_the_notebooks_lie_only_folders_and_three_pages() -> None:
    loose = {path.name for path in notebooks().iterdir() if path.is_file()}
    assert {path.name for path in PATHS} | {"CHEATSHEET.md", "FACILITATOR.md", "QUIZ.md"} == loose


def test_each_folder_of_code_says_what_it_is_for() -> None:
    folders = {path.parent for path in notebooks().rglob("*.py")} - {notebooks() / "exercises"}
    assert [] == [f.name for f in folders if not (f / "__init__.py").read_text().startswith('"""')]


@each_notebook
def test_its_links_lead_somewhere(path: Path) -> None:
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    local = [link for link in re.findall(r"\]\(([^)]+)\)", prose) if "://" not in link]
    assert [] == [link for link in local if not (path.parent / link.partition("#")[0]).exists()]


@each_notebook
def test_each_prediction_is_laid_over_a_result(path: Path) -> None:
    asked = "predicted = None  # "
    sources = [cell.source for cell in code_cells(path)]
    told = [
        "asked" if source.startswith(asked) else "laid over"
        for source in sources
        if source.startswith(asked) or "predicted=predicted" in source
    ]
    assert told
    assert told == ["asked", "laid over"] * (len(told) // 2)


@each_notebook
def test_its_committed_claims_held(path: Path) -> None:
    shown = [output.metadata.get("labkit", {}) for output in outputs(path) if "metadata" in output]
    claims = [claim for data in shown for claim in data.get("claims", [])]
    assert claims
    assert [] == [claim for claim in claims if claim["held"] is not True]


@pytest.fixture(scope="session")
def notebooks_report(notebooks_run: Beside | None) -> dict[str, Any]:
    """What `labkit run` reports of all notebooks, executed here and now, and what they left."""
    assert notebooks_run
    notebooks_run.wait()
    assert "Traceback" not in notebooks_run.output.read_text("utf-8", "replace")
    found: dict[str, Any] = json.loads(notebooks_run.report.read_text("utf-8"))
    return found


@pytest.fixture(scope="session")
def executed(notebooks_report: dict[str, Any]) -> dict[str, Any]:
    """The notebooks of the report, by name."""
    return {notebook["notebook"]: notebook for notebook in notebooks_report["notebooks"]}


@each_notebook
def test_it_runs_here_and_none_of_its_claims_is_broken(
    path: Path, executed: dict[str, Any]
) -> None:
    seen = executed[path.stem]
    assert seen["error"] is None
    # On a busy machine a claim may be inconclusive, and says so; it may never be broken.
    assert [] == [claim for claim in seen["claims"] if claim["held"] is False]
    assert seen["claims"]


def test_they_leave_nothing_behind_on_the_server(notebooks_report: dict[str, Any]) -> None:
    assert [["orders"], 0] == notebooks_report["left"]


def test_00_shows_the_freeze_to_the_honest_stopwatch_alone(executed: dict[str, Any]) -> None:
    runs = {run["name"]: run for run in executed["00_start_here"]["runs"]}
    # One pause of the machine may be a stall and the p99 of the healthy one.
    assert runs["healthy"]["stalls"] < 4 <= runs["freezing"]["stalls"]
    assert 95 < runs["freezing"]["p99_ms"]


def test_01_lowers_the_lookups_p99(executed: dict[str, Any]) -> None:
    [pair] = executed["01_detect_loop_blocking"]["pairs"]
    before, after = pair
    assert 2 <= before["stalls"] > after["stalls"]
    assert before["p99_ms"] > after["p99_ms"]
    assert 0 == before["errors"] == after["errors"]


def test_06_repairs_all_five_faults(executed: dict[str, Any]) -> None:
    before, after = executed["06_verify_under_load"]["pairs"][0]
    assert before["errors"] > 0 == after["errors"]
    assert before["stalls"] > after["stalls"]
    assert before["p99_ms"] > after["p99_ms"]


def headings(path: Path) -> list[str]:
    """The anchors that JupyterLab gives a notebook's headings."""
    prose = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return [text.replace(" ", "-") for text in re.findall(r"^#+ (.+)", prose, re.MULTILINE)]


def test_the_readme_has_no_dead_link_and_no_gap() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    local = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if "://" not in link]
    assert [link for link in local if not (ROOT / link.partition("#")[0]).exists()] == []
    cells = [link.partition("#") for link in local if "#" in link]
    assert [cell for cell in cells if cell[2] not in headings(ROOT / cell[0])] == []
    known = {"DATABASE_URL", "LABKIT_HOME", "PATH_TO_THIS_CHECKOUT"}
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", readme)) <= known
    assert sum(f"notebooks/{path.name}" in readme for path in PATHS) == len(PATHS)


def test_the_readmes_test_command_is_the_one_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    found = re.findall(r"^python3 -m venv .*pytest$", readme, re.MULTILINE)
    assert 1 == len(found)
    assert "grep -m 1 -E '^python3 -m venv .*pytest$' README.md" in (ROOT / ".ci/run").read_text()
