"""The knobs without a browser: sliders are set and the button is pressed in this process."""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
from math import inf, nan
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import ipywidgets
import nbformat
import pytest
from matplotlib.figure import Figure

import labkit
from labkit import LabError, Load, Run
from labkit.display import UNATTENDED
from labkit.show.figures import save
from labkit.show.knobs import Figures, Knobs, controls
from labkit.workbook.kernel import execute
from tests.measure.test_claims import Notebook

Drawn = list[Figure]
RANGES = {"pause_ms": (10, 50, 10), "rate": (20, 40, 20)}


async def pausing(load: Load, pause_ms: int = 20, rate: int = 40) -> None:
    load.offer("lookup", lambda: asyncio.sleep(pause_ms / 1e3), rate=rate)
    await load.run(seconds=0.2)


async def unmeasured(load: Load, pause_ms: int = 20, rate: int = 40) -> None:
    pytest.fail("it was measured")


def pause(pause_ms: int, rate: int) -> float:
    return pause_ms


def quickest(run: Run) -> float:
    """No pause of the machine changes it, unless all eight requests meet one."""
    return float(run.requests.latency_ms.min())


class Jupyter(Notebook):
    """A kernel in which somebody sits; progress lines are kept, too."""

    def _display(self, bundle: dict[str, Any], **options: Any) -> Any:
        self.shown.append((bundle, options["metadata"]))
        return SimpleNamespace(update=self._display)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """The figures behind the pictures."""
    figures: Drawn = []

    def keep(figure: Figure, title: str, said: str) -> None:
        save(figure, title, said)
        figures.append(figure)

    monkeypatch.setattr(sys.modules[Knobs.__module__], "save", keep)
    return figures


@pytest.fixture
def jupyter(monkeypatch: pytest.MonkeyPatch) -> Jupyter:
    monkeypatch.delenv(UNATTENDED, raising=False)
    return Jupyter(monkeypatch)


class Panel:
    """The widgets as a reader has them."""

    def __init__(self, scenario: Any = pausing, predict: Any = pause, read: Any = quickest) -> None:
        values = {name: range(low, high + 1, by) for name, (low, high, by) in RANGES.items()}
        setting = {"pause_ms": 20, "rate": 40}
        self.knobs = Knobs(scenario, predict, read, "quickest (ms)", values, setting)
        box = controls(self.knobs)
        self.pause, self.rate, self.button, self._said, self._picture = box.children
        self.told: list[str] = []
        self._said.observe(lambda change: self.told.append(change["new"]), "value")

    @property
    def said(self) -> str:
        return str(self._said.value)

    @property
    def picture(self) -> str:
        """Its text."""
        return str(self._picture.value).partition('alt="')[2].partition('"')[0]


def bundles(jupyter: Jupyter) -> list[dict[str, Any]]:
    return [bundle for bundle, _ in jupyter.shown if "image/png" in bundle]


def test_what_is_shown_is_a_widget_and_for_who_has_none_the_measured_picture(
    jupyter: Jupyter,
) -> None:
    labkit.knobs(pausing, predict=pause, read=quickest, unit="quickest (ms)", **RANGES)
    [bundle] = bundles(jupyter)
    assert "model_id" in bundle["application/vnd.jupyter.widget-view+json"]
    assert "quickest (ms): 20 by pencil; 2" in bundle["text/plain"]
    assert " measured. The knobs: pause (ms) 20, rate 40." in bundle["text/plain"]


def test_where_nobody_sits_there_is_the_picture_alone(
    jupyter: Jupyter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(UNATTENDED, "yes")
    labkit.knobs(pausing, predict=pause, read=quickest, unit="quickest (ms)", **RANGES)
    [bundle] = bundles(jupyter)
    assert ["text/plain", "image/png"] == [*bundle]
    assert " measured. The knobs: pause (ms) 20, rate 40." in bundle["text/plain"]


def test_a_notebook_that_is_executed_has_the_picture_and_no_widget(tmp_path: Path) -> None:
    source = """
import asyncio, labkit as lab
async def pausing(load, pause_ms=20):
    load.offer("lookup", lambda: asyncio.sleep(pause_ms / 1e3), rate=40)
    await load.run(seconds=0.2)
lab.knobs(
    pausing, predict=lambda pause_ms: pause_ms, read=lambda run: run.requests.latency_ms.min(),
    unit="quickest (ms)", pause_ms=(10, 50, 10),
)
"""
    cell = nbformat.v4.new_code_cell(source)  # type: ignore[no-untyped-call]
    notebook = nbformat.v4.new_notebook(cells=[cell])  # type: ignore[no-untyped-call]
    execute(notebook, tmp_path)
    assert "widgets" not in notebook.metadata
    _, picture = notebook.cells[0].outputs
    assert {"image/png", "text/plain"} == {*picture.data}
    assert "by pencil" in picture.metadata["image/png"]["alt"]


def test_a_turned_knob_moves_the_prediction_and_leaves_what_was_measured_as_a_ghost() -> None:
    panel = Panel()
    assert "quickest (ms): 20 by pencil; not measured yet" in panel.picture
    panel.button.click()
    assert "quickest (ms): 20 by pencil; 2" in panel.picture
    panel.pause.value = 50
    before, _, ghost = panel.picture.partition(" Before: ")
    assert before == (
        "quickest (ms): 50 by pencil; not measured yet. The knobs: pause (ms) 50, rate 40."
    )
    assert ghost.startswith("20 by pencil; 2")
    panel.button.click()
    now, _, same_ghost = panel.picture.partition(" Before: ")
    assert now.startswith("quickest (ms): 50 by pencil; 5")
    assert ghost == same_ghost


def test_the_ghost_is_another_setting_however_often_one_is_measured() -> None:
    panel = Panel()
    panel.button.click()
    panel.rate.value = 20
    panel.button.click()
    panel.button.click()
    assert panel.picture.endswith("at pause (ms) 20, rate 40.")


def test_the_progress_and_the_run_are_told_in_the_widget(jupyter: Jupyter) -> None:
    panel = Panel()
    panel.button.click()
    assert any("loop lag" in told and "alert" not in told for told in panel.told)
    assert "alert" in panel.said
    assert "pausing: 8 requests; lookup p50 " in panel.said
    assert [] == jupyter.shown


def test_several_figures_are_drawn_by_their_names() -> None:
    def two(pause_ms: int, rate: int) -> Figures:
        return {"half": pause_ms / 2, "all": pause_ms}

    def read(run: Run) -> Figures:
        return {"half": run.latency().p50 / 2, "all": run.latency().p50}

    panel = Panel(predict=two, read=read)
    panel.button.click()
    assert "quickest (ms): 10 half, 20 all by pencil; 1" in panel.picture


@pytest.mark.parametrize("gives", [3, {"half": 3}, {"half": 1, "whole": 2}])
def test_figures_by_other_names_than_the_predictions_are_refused(gives: Any) -> None:
    panel = Panel(predict=lambda pause_ms, rate: {"half": 1, "all": 2}, read=lambda run: gives)
    panel.button.click()
    assert "by predict&#x27;s names" in panel.said
    assert "not measured yet" in panel.picture


def test_a_figure_is_drawn_at_its_name_in_whatever_order(drawn: Drawn) -> None:
    panel = Panel(
        predict=lambda pause_ms, rate: {"low": 1, "high": 50},
        read=lambda run: {"high": 51, "low": 2},
    )
    panel.button.click()
    lines: list[Any] = [*drawn[-1].axes[0].lines]
    dots = {line.get_label(): line.get_ydata() for line in lines}
    assert ([2], [51]) == (dots["measured low"], dots["measured high"])


def test_the_legend_shows_the_first_of_several_lines_and_of_several_ghosts(drawn: Drawn) -> None:
    both = {"low": 1, "high": 50}
    panel = Panel(predict=lambda pause_ms, rate: both, read=lambda run: both)
    panel.button.click()
    panel.rate.value = 20
    panel.button.click()
    [legend] = drawn[-1].legends
    handles: list[Any] = legend.legend_handles
    looks = {
        it.get_label(): (it.get_linestyle(), it.get_marker(), it.get_alpha()) for it in handles
    }
    assert (":", "D", 1) == looks["by pencil: a formula, not measured"]
    assert ("None", "o", 0.3) == looks["measured before"]
    assert ("None", "s", 1) == looks["measured high"]


def test_a_run_without_the_figure_is_told_in_words() -> None:
    panel = Panel(read=lambda run: nan)
    panel.button.click()
    assert "quickest (ms): 20 by pencil; no figure measured" in panel.picture


def test_a_turned_knob_is_told_to_a_screen_reader() -> None:
    panel = Panel()
    assert "Turn a knob" in panel.said
    panel.pause.value = 50
    assert 'role="alert"' in panel.said
    assert "quickest (ms): 50 by pencil; not measured yet<" in panel.said


def test_a_second_press_while_it_measures_does_nothing() -> None:
    def read(run: Run) -> float:
        panel.button.click()
        return quickest(run)

    panel = Panel(read=read)
    panel.button.click()
    assert 1 == len(panel.knobs.seen)
    assert not panel.pause.disabled


def test_an_error_is_told_as_its_sentence() -> None:
    async def broken(load: Load, pause_ms: int, rate: int) -> None:
        raise ValueError("<no pool>")

    panel = Panel(broken)
    panel.button.click()
    assert (
        "LabError: The scenario &#x27;broken&#x27; raised ValueError: &lt;no pool&gt;" in panel.said
    )
    assert not panel.pause.disabled


def test_the_stop_button_ends_a_measurement_and_the_next_one_works() -> None:
    async def patient(load: Load, pause_ms: int, rate: int) -> None:
        load.offer("lookup", lambda: asyncio.sleep(0), rate=rate)
        if pause_ms == 20:
            threading.Timer(0.3, _thread.interrupt_main).start()
        await load.run(seconds=60 if pause_ms == 20 else 0.2)

    panel = Panel(patient)
    began = monotonic()
    panel.button.click()
    assert 2.5 > monotonic() - began
    assert "Stopped: patient was stopped." in panel.said
    panel.pause.value = 50
    panel.button.click()
    assert "patient: 8 requests" in panel.said


@pytest.mark.parametrize(
    ("ranges", "wanted"),
    [
        ({"paws": (10, 50, 10)}, r"'paws': \(10, 50, 10\)}. Expected whole numbers: lowest, high"),
        ({"pause_ms": (15, 55, 10)}, "and a default there"),
        ({"pause_ms": (50, 10, 10)}, "cannot turn {'pause_ms'"),
        ({"pause_ms": (10, 50, 0)}, "cannot turn {'pause_ms'"),
        ({"pause_ms": (10.0, 50.0, 10.0)}, "cannot turn {'pause_ms'"),
        ({}, "cannot turn nothing"),
        ({"pause_ms": (10, 50, 10)}, "predict: missing a required argument: 'rate'"),
        ({"pause_ms": (10, 200_000, 1), "rate": (20, 40, 20)}, "have 399,982 settings, .* larger"),
    ],
)
def test_a_knob_that_cannot_be_turned_is_refused(ranges: Any, wanted: str) -> None:
    with pytest.raises(LabError, match=wanted):
        labkit.knobs(unmeasured, predict=pause, read=quickest, unit="quickest (ms)", **ranges)


@pytest.mark.parametrize("gives", ["10", [10.0], 10j])
def test_what_is_no_figure_is_told(gives: Any) -> None:
    with pytest.raises(LabError, match=r"is no figure\. Expected a number, or numbers by names"):
        labkit.knobs(
            unmeasured,
            predict=lambda pause_ms: gives,
            read=quickest,
            unit="ms",
            pause_ms=(10, 50, 10),
        )


@pytest.mark.parametrize("gives", [nan, inf, -1, None])
def test_a_prediction_that_cannot_be_drawn_at_some_setting_is_refused_before_measuring(
    gives: Any,
) -> None:
    def predict(pause_ms: int, rate: int) -> Any:
        return gives if pause_ms == 50 else pause_ms

    with pytest.raises(LabError, match=r"predict gave .* at {'pause_ms': 50, 'rate': 20}"):
        labkit.knobs(unmeasured, predict=predict, read=quickest, unit="quickest (ms)", **RANGES)


def test_each_slider_has_a_name_and_steps() -> None:
    panel = Panel()
    assert isinstance(panel.pause, ipywidgets.IntSlider)
    assert ("pause (ms)", 10, 50, 10) == (
        panel.pause.description,
        panel.pause.min,
        panel.pause.max,
        panel.pause.step,
    )
