import math
import re
import struct
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import labkit
from labkit import Frame, LabError, Run, Stall
from labkit.measure.load import Request
from labkit.measure.run import DEBUG
from labkit.show import charts, figures
from tests.measure.test_claims import Notebook, a_run, lookups

FRAME = Frame("/somewhere/legacy.py", 12, "load_report")
STALLS = (
    Stall(0.1, 80, "blocked", FRAME, (FRAME,), 3, False, 1, None),
    Stall(0.5, 120, "blocked", FRAME, (FRAME,), 3, False, 1, None),
)
BEFORE = a_run(*[1.0] * 98, 100.0, 120.0, name="legacy", stalls=STALLS)
LOOKUPS = lookups(*[1.0] * 98, 2.0, 3.0)
AFTER = a_run(*[1.0] * 98, 2.0, 3.0, name="repaired")
READINGS = [{"at_s": i / 50, "idle": value} for i, value in enumerate([5, 3, 0, 0, 1])]
EMPTIED = a_run(1.0, readings=READINGS, seconds=1.0)
SAID_BEFORE = "legacy: p50 1.0, p99 100, max 120 ms (n=100); 2 stalls, the longest 120 ms."
SAID_AFTER = "repaired: p50 1.0, p99 2.0, max 3.0 ms (n=100); no stall."


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    return Notebook(monkeypatch)


def picture(notebook: Notebook) -> tuple[str, dict[str, Any]]:
    """The one picture that was shown: its text alternative, and the data beside it."""
    [(bundle, metadata)] = [shown for shown in notebook.shown if "image/png" in shown[0]]
    png = bundle["image/png"]
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    said = bundle["text/plain"]
    width = struct.unpack(">I", png[16:20])[0] // 2
    assert metadata["image/png"] == {"alt": said, "width": width}
    assert 600 < width < 1000
    return said, metadata.get("labkit", {})


def tables(notebook: Notebook) -> list[str]:
    shown = [bundle for bundle, _ in notebook.shown if "text/html" in bundle]
    assert all("<table" in bundle["text/html"] for bundle in shown)
    return [bundle["text/plain"] for bundle in shown]


def test_a_timeline_says_the_latencies_and_the_stalls(notebook: Notebook) -> None:
    labkit.timeline(BEFORE)
    assert picture(notebook)[0] == (f"lookup: p50 1.0, p99 100, max 120 ms (n=100). {SAID_BEFORE}")


def test_a_timeline_takes_a_title_of_its_own(notebook: Notebook) -> None:
    labkit.timeline(AFTER, title="Nothing holds the loop")
    assert picture(notebook)[0] == f"Nothing holds the loop. {SAID_AFTER}"


def test_a_timeline_can_show_another_offer(notebook: Notebook) -> None:
    others = [Request("report", 0.2, 0.2, 0.25, None), Request("report", 0.3, 0.3, 0.31, "no")]
    run = a_run(1.0, 1.0, requests=LOOKUPS + others)
    labkit.timeline(run, offer="report")
    said, _ = picture(notebook)
    assert "report: p50 50.0, p99 50.0," in said
    assert "(n=1), 1 failed; no stall." in said


def test_a_run_in_which_nothing_completed_can_be_shown(notebook: Notebook) -> None:
    failed = [Request("lookup", i / 10, i / 10, i / 10 + 0.01, "TimeoutError") for i in range(5)]
    labkit.timeline(a_run(1.0, requests=failed))
    assert "lookup: none completed. a run: none completed, 5 failed" in picture(notebook)[0]


def test_a_prediction_is_laid_over_what_was_measured(notebook: Notebook) -> None:
    labkit.timeline(AFTER, predicted=30)
    labkit.compare(BEFORE, AFTER, predicted=0.5)
    labkit.bars({"pool": 2.0, "none": 9.0}, title="Two", unit="p99 (ms)", predicted=[1, 30])
    labkit.lines([1, 2], {"pool": [1, 2]}, title="Two", x_unit="n", unit="MB", predicted=0)
    labkit.gauges(EMPTIED, title="Idle", predicted=4)
    pictures = [bundle for bundle, _ in notebook.shown if "image/png" in bundle]
    predicted = ["30 ms.", "0.5 ms.", "1; 30.", "0.", "4."]
    assert [f" Predicted: {figure}" for figure in predicted] == [
        shown["text/plain"][shown["text/plain"].index(" Predicted:") :] for shown in pictures
    ]
    notebook.shown.clear()
    labkit.timeline(AFTER)
    unpredicted, _ = notebook.shown[0]
    assert pictures[0]["image/png"] != unpredicted["image/png"]


@pytest.mark.parametrize("predicted", [0, -1, "20 ms", ...])
def test_a_prediction_that_is_no_time_is_refused(predicted: Any) -> None:
    with pytest.raises(labkit.LabError, match="Expected one figure in ms, such as 20"):
        labkit.timeline(AFTER, predicted=predicted)


@pytest.mark.parametrize("predicted", [0, 3, 40])
def test_a_prediction_is_in_sight_however_far_off(
    monkeypatch: pytest.MonkeyPatch, predicted: float
) -> None:
    limits: list[tuple[float, float]] = []
    for module in figures, charts:
        monkeypatch.setattr(module, "save", lambda fig, *_: limits.append(fig.axes[0].get_ylim()))
    labkit.lines([1, 2], {"pool": [1, 2]}, title="2", x_unit="n", unit="MB", predicted=predicted)
    labkit.gauges(EMPTIED, title="Idle", predicted=predicted)
    labkit.timeline(AFTER, predicted=predicted or 0.01)
    assert len(limits) == 3
    assert [] == [seen for seen in limits[:2] if not seen[0] <= predicted <= seen[1]]
    assert limits[2][0] < (predicted or 0.01) < limits[2][1]


def test_nothing_can_be_predicted_but_not_less(notebook: Notebook) -> None:
    with pytest.raises(labkit.LabError, match="Expected one figure, such as 20"):
        labkit.gauges(EMPTIED, title="Idle", predicted=-1)


@pytest.mark.parametrize("predicted", [[1], 7, "7", [1, None]])
def test_as_many_predictions_as_bars(notebook: Notebook, predicted: Any) -> None:
    with pytest.raises(labkit.LabError, match=r"Expected 2 figures, such as \[10, 20\], or None"):
        labkit.bars({"pool": 2.0, "none": 9.0}, title="Two", unit="ms", predicted=predicted)


def test_a_comparison_says_both_runs_and_how_p99_changed(notebook: Notebook) -> None:
    labkit.compare(BEFORE, AFTER)
    said, data = picture(notebook)
    p99s = BEFORE.latency().p99, AFTER.latency().p99
    assert said == (
        f"lookup: p99 from 100 to 2.0 ms, {p99s[0] / p99s[1]:.0f}× lower. "
        f"Before: {SAID_BEFORE} After: {SAID_AFTER}"
    )
    assert data == {"pair": [BEFORE.figures(), AFTER.figures()]}
    [table] = tables(notebook)
    assert [line.split()[0] for line in table.splitlines()] == ["run", "legacy", "repaired"]


def test_a_comparison_that_got_worse_says_so(notebook: Notebook) -> None:
    labkit.compare(AFTER, BEFORE)
    assert "p99 from 2.0 to 100 ms, 50× higher. " in picture(notebook)[0]


@pytest.mark.parametrize("after", [2.0, 2.3, 1.7, 1.0])
def test_a_comparison_in_which_nothing_changed_says_so(notebook: Notebook, after: float) -> None:
    noise_ms = 1.1 if after == 1.0 else 0.0  # so late was the machine by itself
    labkit.compare(a_run(2.0), a_run(after, noise_ms=noise_ms))
    said, _ = picture(notebook)
    wanted = r"unchanged: 2\.0× is within the noise" if noise_ms else r"hardly changed: \d\.\d×"
    assert re.match(rf"lookup: p99 from 2\.0 to {after} ms, {wanted}\. Before: ", said)


def test_several_pairs_in_which_nothing_changed_show_their_range(notebook: Notebook) -> None:
    labkit.compare([a_run(2.0)] * 3, [a_run(ms) for ms in (1.0, 2.0, 2.2)])
    assert (
        "2.0 ms, hardly changed: 1.0× (median of 3 pairs, 0.9× to 2.0×). " in (picture(notebook)[0])
    )


def test_a_comparison_says_in_its_title_that_the_machine_paused(notebook: Notebook) -> None:
    labkit.compare(a_run(*[1.0] * 98, 100.0, 120.0, pauses=[(0.9, 1.0)]), AFTER)
    said, _ = picture(notebook)
    assert "50× lower; but the machine paused, for up to 100 ms. Before: " in said


def test_of_several_pairs_the_one_in_the_middle_is_drawn(notebook: Notebook) -> None:
    befores = [a_run(ms, name=f"before {ms}") for ms in (90.0, 50.0, 20.0)]
    afters = [a_run(1.0, name=f"after {i}") for i in range(3)]
    labkit.compare(befores, afters)
    said, data = picture(notebook)
    assert "p99 from 50.0 to 1.0 ms, 50× lower (median of 3 pairs, 20× to 90×)" in said
    assert [run["name"] for run in data["pair"]] == ["before 50.0", "after 1"]


def test_bars_say_each_figure(notebook: Notebook) -> None:
    labkit.bars({"inline": 189.4, "thread": 0.0456}, title="A thread helps", unit="p99 (ms)")
    assert picture(notebook)[0] == "A thread helps. p99 (ms): inline: 189; thread: 0.0456."


def test_gauges_say_their_readings(notebook: Notebook) -> None:
    labkit.gauges(EMPTIED, title="None is left")
    assert picture(notebook)[0] == (
        "None is left. connections over time (s): "
        "idle: 5 at 0, 3 at 0.02, 0 at 0.04, 0 at 0.06, 1 at 0.08."
    )


def test_lines_say_each_point(notebook: Notebook) -> None:
    labkit.lines(
        [1, 10],
        {"inline": [10.0, float("nan")], "thread": [12.0, 13.0]},
        title="It grows",
        x_unit="rows",
        unit="p99 (ms)",
        log=True,
    )
    assert picture(notebook)[0] == (
        "It grows. p99 (ms) over rows: inline: 10 at 1; thread: 12 at 1, 13 at 10."
    )


# What was drawn.


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Each figure that is shown, laid out."""
    seen: list[Figure] = []
    savefig = Figure.savefig

    def kept(figure: Figure, *args: Any, **options: Any) -> None:
        seen.append(figure)
        savefig(figure, *args, **options)
        figure.draw_without_rendering()

    monkeypatch.setattr(Figure, "savefig", kept)
    return seen


def boxes(figure: Figure, *texts: str) -> list[Bbox]:
    found = {t.get_text().strip(): t for t in figure.findobj(Text)}
    assert not set(texts) - set(found), found
    return [found[text].get_window_extent() for text in texts]


@pytest.mark.parametrize("predicted", [1.8, 1.99, 2.0, 2.01, 2.2])
def test_what_was_predicted_does_not_cover_the_p99(drawn: list[Figure], predicted: float) -> None:
    run = a_run(*[1.0] * 50, *[2.0] * 50, name="alike")
    labkit.timeline(run, predicted=predicted)
    [words] = boxes(drawn[0], f"you predicted {predicted:.3g} ms")
    [axes] = drawn[0].axes
    p99 = axes.transData.transform((0, run.latency().p99))[1]
    assert not words.y0 < p99 < words.y1


@pytest.mark.parametrize("predicted", [5.0, 5.3, 5.6, 6.0])
def test_a_diamond_does_not_cover_the_figure_beside_its_bar(
    drawn: list[Figure], predicted: float
) -> None:
    labkit.bars({"pool": 5.0, "none": 5.0}, title="2", unit="ms", predicted=[predicted] * 2)
    [axes] = drawn[0].axes
    diamonds: Any
    [diamonds] = axes.lines
    figures_beside = [t.get_window_extent() for t in axes.texts]
    for at, beside in zip(diamonds.get_xydata(), figures_beside, strict=True):
        x, y = axes.transData.transform(at)
        size = diamonds.get_markersize() / 72 * drawn[0].dpi / 2
        diamond = Bbox([[x - size, y - size], [x + size, y + size]])
        assert not diamond.overlaps(beside)


def test_no_legend_covers_what_was_measured(drawn: list[Figure]) -> None:
    failed = [Request("lookup", 0.9, 0.9, 0.9001, "no")]
    labkit.timeline(a_run(1.0, 1.0, requests=LOOKUPS + failed, seconds=1.0))
    labkit.compare(BEFORE, a_run(1.0, requests=LOOKUPS + failed))
    labkit.lines([1, 2], {"a": [1, 2], "b": [2, 1]}, title="2", x_unit="n", unit="MB")
    labkit.gauges(EMPTIED, title="Idle")
    for figure in drawn:
        [legend] = figure.legends
        covered = [legend.get_window_extent().overlaps(axes.bbox) for axes in figure.axes]
        assert not any(covered)


def test_what_is_counted_is_counted_in_whole_numbers(drawn: list[Figure]) -> None:
    labkit.bars({"plain": 20.0, "patched": 0}, title="Few", unit="warnings")
    labkit.bars({"plain": 2.0, "patched": 0}, title="Few", unit="warnings")
    labkit.lines([1, 2, 3], {"served": [1, 2, 0]}, title="3", x_unit="at once", unit="served")
    labkit.gauges(EMPTIED, title="Idle")
    bars, fewer, lines, gauges = [figure.axes[0] for figure in drawn]
    for axis in (bars.xaxis, fewer.xaxis, lines.xaxis, lines.yaxis, gauges.yaxis):
        assert [float(at).is_integer() for at in axis.get_majorticklocs()].count(False) == 0


def test_a_request_has_one_colour_whatever_was_the_matter(drawn: list[Figure]) -> None:
    labkit.timeline(BEFORE)
    labkit.timeline(AFTER)
    labkit.compare(BEFORE, AFTER)
    dots: list[Any] = [axes.collections[0] for figure in drawn for axes in figure.axes]
    assert {to_rgba(figures.BLUE, 0.7)} == {tuple(dot.get_facecolor()[0]) for dot in dots}


def test_a_comparison_says_in_its_title_that_more_fail(
    notebook: Notebook,
) -> None:
    failed = [Request("lookup", 0.2, 0.2, 0.201, "RuntimeError: down")] * 98
    labkit.compare(BEFORE, a_run(1.0, requests=LOOKUPS[:2] + failed))
    said, _ = picture(notebook)
    assert said.startswith(
        "lookup: p99 from 100 to 1.0 ms, 100× lower; but 98 of 100 failed, 0 of 100 before"
    )


def test_a_comparison_says_in_its_title_that_a_run_was_profiled_or_others_fail(
    notebook: Notebook,
) -> None:
    profiled = replace(AFTER, invalid="a tracer or a profiler was on")
    down = [Request("audit", 0.2, 0.2, 0.201, "RuntimeError: down")] * 4
    labkit.compare(profiled, a_run(1.0, requests=LOOKUPS + down))
    said, _ = picture(notebook)
    title = said.split(". Before:")[0]
    assert "; but audit: 4 of 4 failed, 0 of 0 before" in title
    assert title.endswith("; but a tracer or a profiler was on")


def test_a_comparison_counts_the_failures_of_the_pairs_that_it_does_not_draw(
    notebook: Notebook,
) -> None:
    down = [Request("lookup", i / 10, i / 10, i / 10 + 0.001, "Down") for i in range(30)]
    some_fail = a_run(1.0, requests=LOOKUPS + down, name="repaired")
    labkit.compare([BEFORE] * 3, [some_fail, AFTER, some_fail])
    title = picture(notebook)[0].split(". Before:")[0]
    assert title.endswith("; but 60 of 360 failed, 0 of 300 before")


def test_figures_below_nothing_are_drawn(drawn: list[Figure]) -> None:
    labkit.bars({"lost": -5.0, "won": 2.0}, title="a title", unit="")
    labkit.lines([1, 2], {"change": [-3.0, 4.0]}, title="a title", x_unit="", unit="")
    [bars], [lines] = (figure.axes for figure in drawn)
    assert bars.get_xlim()[0] < -5 < 2 < bars.get_xlim()[1]
    assert lines.get_ylim()[0] < -3 < 4 < lines.get_ylim()[1]


def test_what_is_no_figure_is_drawn_as_none_and_a_dollar_as_it_is(drawn: list[Figure]) -> None:
    labkit.bars({"a = $1 and b = $2": 3.0, "lost": math.nan}, title="$1 and $2", unit="ms")
    [axes] = drawn[0].axes
    texts = [text for text in drawn[0].findobj(Text) if isinstance(text, Text)]
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())
    assert {"3", "nan"} <= {text.get_text() for text in axes.texts}


def test_what_cannot_be_drawn_is_told() -> None:
    with pytest.raises(LabError, match=r"bars.. was given nothing"):
        labkit.bars({}, title="a title", unit="ms")
    with pytest.raises(LabError, match=r"lines.. was given .'a': 1. figures for 2 x"):
        labkit.lines([1, 2], {"a": [1.0]}, title="a title", x_unit="", unit="")
    with pytest.raises(LabError, match=r"verify.. was given 7. Expected claims"):
        labkit.verify(7)  # type: ignore[arg-type]


def test_a_request_is_held_up_once_by_a_line_however_often(notebook: Notebook) -> None:
    run = a_run(1.0, requests=[Request("job", 0.0, 0.0, 0.9, None)], stalls=STALLS)
    labkit.stalls(run)
    assert tables(notebook)[0].split()[-2:] == ["1", "200"]


def test_stalls_are_tabulated_by_line_the_costliest_first(notebook: Notebook) -> None:
    short = Frame("/somewhere/json.py", 3, "dump")
    other = Stall(0.7, 90, "computing", short, (short,), 3, False, 1, None)
    unseen = Stall(0.8, 60, "blocked", None, (), 0, True, 0, None)
    labkit.stalls(a_run(1.0, 1.0, stalls=(unseen, other, *STALLS)))
    [table] = tables(notebook)
    first, second, third = [" ".join(row.split()) for row in table.splitlines()[1:]]
    assert first == "legacy.py:12 in load_report blocked 2 120 200 0 0"
    assert second == "json.py:3 in dump computing 1 90 90 0 0"
    assert third == "no look found it blocked 1 60 60 0 0"


def test_a_run_without_stalls_says_so(notebook: Notebook) -> None:
    labkit.stalls(AFTER)
    assert notebook.shown == [({"text/plain": "repaired: nothing held the loop."}, {})]


def test_a_summary_has_a_row_for_each_run(notebook: Notebook) -> None:
    debugged = a_run(4.0, name="debugged", invalid=DEBUG)
    labkit.summary([BEFORE, AFTER, debugged])
    [table] = tables(notebook)
    rows = [" ".join(row.split()) for row in table.splitlines()]
    assert rows == [
        "run completed failed p50 (ms) p99 (ms) max (ms) stalls longest stall (ms)",
        "legacy 100 0 1 100 120 2 120",
        "repaired 100 0 1 2.01 3 0 0",
        "debugged (asyncio's debug mode was on) 300 0 4 4 4 0 0",
    ]


def test_outside_a_notebook_the_same_words_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def show(before: Run, after: Run) -> None:
        labkit.timeline(before)
        labkit.compare(before, after)
        labkit.bars({"inline": 189.4}, title="One bar", unit="p99 (ms)")
        labkit.stalls(before)
        labkit.summary([before, after])

    show(BEFORE, AFTER)
    printed = capsys.readouterr().out
    notebook = Notebook(monkeypatch)
    show(BEFORE, AFTER)
    assert printed == "".join(f"{bundle['text/plain']}\n" for bundle, _ in notebook.shown)
