"""Knobs to turn: a prediction that moves with them, and a button that really measures."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from html import escape
from itertools import cycle, product
from math import inf, isnan, nan, prod
from numbers import Real
from typing import Any

from labkit.display import as_img, attended, call_interruptibly, diverted, number, put
from labkit.errors import LabError
from labkit.measure import Run, measure
from labkit.show.figures import BLUE, PREDICTED, VERMILION, panels, save

Figures = dict[str, float]  # by their names

_SETTINGS = 100_000  # predict is asked for each before anything is drawn
_MARKS = ((BLUE, "o", ":"), (VERMILION, "s", "-."))
# ipywidgets gives a slider's handle no name: a screen reader would only say "slider, 120".
_NAMES = """<script>(window.labkitNames ??= new MutationObserver(() =>
    document.querySelectorAll(".widget-hslider [role=slider]:not([aria-label])").forEach(handle =>
        handle.ariaLabel = handle.closest(".widget-hslider").querySelector("label").textContent)
)).observe(document.body, {childList: true, subtree: true})</script>"""


def knobs(
    scenario: Callable[..., Awaitable[object]],
    *,
    predict: Callable[..., float | Figures],
    read: Callable[[Run], float | Figures],
    unit: str,
    **ranges: tuple[int, int, int],
) -> None:
    """Measure a scenario at its default setting, and let the reader turn its knobs.

    Where nobody can press "Measure" (`labkit run`, a page), the picture is all there is.

    Args:
        scenario: An `async def scenario(load, freeze_ms=120)`: the knobs are its arguments.
        predict: A formula with the same arguments: the figure, or several by their names.
        read: The same of a run that was measured, by the same names; NaN if it has none.
        unit: What the figures are, with their unit: "p99 (ms)".
        ranges: For each knob its lowest value, its highest, the step. The first is the x axis.

    Raises:
        LabError: A knob, predict or read is not as it is said here; and what `measure` raises.
    """
    arguments = inspect.signature(scenario).parameters
    three = {name: it for name, it in ranges.items() if isinstance(it, tuple) and len(it) == 3}
    values = {
        name: range(low, high + 1, step)
        for name, (low, high, step) in three.items()
        if isinstance(low + high + step, int) and step > 0
    }
    setting = {name: arguments[name].default for name in ranges if name in arguments}
    wrong = {it: ranges[it] for it in ranges if setting.get(it) not in values.get(it, ())}
    if wrong or not ranges:
        raise LabError(
            f"knobs() cannot turn {wrong or 'nothing'}. Expected whole numbers: lowest, highest, "
            "step, as rate=(20, 40, 5); and a default there: `async def scenario(load, rate=20)`."
        )
    try:
        inspect.signature(predict).bind(**setting)
    except TypeError as error:
        raise LabError(f"predict: {error}. Expected the knobs as its arguments.") from None
    panel = Knobs(scenario, predict, read, unit, values, setting)
    panel.measure()
    bundle, metadata = panel.picture()
    if attended():
        put({"text/html": _NAMES}, {})
        bundle = controls(panel)._repr_mimebundle_() | bundle
    put(bundle, metadata)


@dataclass
class Knobs:
    """What `knobs` was given, where the knobs stand, and what was measured at which setting."""

    scenario: Callable[..., Awaitable[object]]
    predict: Callable[..., float | Figures]
    read: Callable[[Run], float | Figures]
    unit: str
    values: dict[str, range]
    setting: dict[str, int]
    seen: list[tuple[dict[str, int], Figures]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if (count := prod(map(len, self.values.values()))) > _SETTINGS:
            raise LabError(
                f"The knobs have {count:,} settings, and predict is asked for each. Expected at "
                f"most {_SETTINGS:,}: make the steps larger."
            )
        settings = (zip(self.values, at, strict=True) for at in product(*self.values.values()))
        # As high as any setting needs: a knob moves the figures, and not the axis.
        self.highest = max(max(self._pencil(dict(setting)).values()) for setting in settings)

    def measure(self) -> Run:
        """Measure where the knobs stand; raises what `labkit.measure` raises."""
        setting = self.setting  # a knob may be turned meanwhile
        run = measure(update_wrapper(partial(self.scenario, **setting), self.scenario))
        figures, pencil = _named(self.read(run)), self._pencil(setting)
        if figures.keys() != pencil.keys() or any(it < 0 for it in figures.values()):
            raise LabError(
                f"read gave {figures}. Expected figures of 0 or more, by predict's names: {pencil}."
            )
        self.seen.append((setting, figures))
        return run

    def picture(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The prediction, what was measured there, and the last other setting as a ghost."""
        figure, [axes] = panels(height=3.7)
        now = [one for one in self.seen if one[0] == self.setting] or [(self.setting, {})]
        self.said = f"{self.unit}: {self._said(*now[-1])}"
        text = f"{self.said}. The knobs: {_stand(self.setting)}."
        for setting, figures in [one for one in self.seen if one[0] != self.setting][-1:]:
            self._draw(axes, setting, figures, alpha=0.3)
            text += f" Before: {self._said(setting, figures)}, at {_stand(setting)}."
        self._draw(axes, *now[-1])
        axes.set(xlabel=_words(next(iter(self.values))), ylabel=self.unit)
        axes.set_ylim(0, 1.15 * max(self.highest, axes.dataLim.y1) or 1)
        shown: list[tuple[dict[str, Any], dict[str, Any]]] = []
        with diverted(lambda *output: shown.append(output)):
            save(figure, self.said, text)
        return shown[0]

    def _pencil(self, setting: dict[str, int]) -> Figures:
        figures = _named(self.predict(**setting))
        if not figures or not all(0 <= it < inf for it in figures.values()):
            raise LabError(f"predict gave {figures} at {setting}. Expected figures of 0 or more.")
        return figures

    def _said(self, setting: dict[str, int], figures: Figures) -> str:
        measured = f"{_listed(figures)} measured" if figures else "not measured yet"
        return f"{_listed(self._pencil(setting))} by pencil; {measured}"

    def _draw(self, axes: Any, setting: dict[str, int], seen: Figures, alpha: float = 1) -> None:
        x, values = next(iter(self.values.items()))
        line = [self._pencil(setting | {x: at}) for at in values]
        here: dict[str, Any] = {"marker": "D", "markevery": [values.index(setting[x])], "mec": "w"}
        # The legend shows the last of those that have the same label: the first figure's.
        for name, (colour, mark, dashes) in reversed([*zip(line[0], cycle(_MARKS))]):
            if seen:
                label = f"measured {name}" if alpha == 1 else "measured before"
                axes.plot(setting[x], seen[name], mark, ms=13, c=colour, alpha=alpha, label=label)
            ys, label = [at[name] for at in line], "by pencil: a formula, not measured"
            axes.plot(values, ys, ls=dashes, lw=2, c=PREDICTED, alpha=alpha, label=label, **here)
            axes.text(values[-1], ys[-1], f"  {name}", va="center", c=PREDICTED, alpha=alpha)


def controls(panel: Knobs) -> Any:
    """The sliders, the button, what it says, and the picture, as a box of ipywidgets."""
    import ipywidgets

    said = ipywidgets.HTML("<p>Turn a knob, look at the prediction, and measure.</p>")
    picture = ipywidgets.HTML(as_img(*panel.picture()))
    button = ipywidgets.Button(description="Measure")

    def tell(words: str, role: str = "none") -> None:
        # It is replaced as a whole: then a screen reader reads an alert, and no other live region.
        said.value = f'<p role="{role}" style="white-space: pre-wrap">{escape(words)}</p>'

    def turn(name: str, change: Any) -> None:
        panel.setting = panel.setting | {name: change["new"]}
        picture.value = as_img(*panel.picture())
        tell(panel.said, "alert")

    def press(_: Any) -> None:
        if not sliders[0].disabled:  # not the button: it would lose the keyboard's focus
            sliders[0].disabled = True
            call_interruptibly(measure_here)

    def measure_here() -> None:
        try:
            with diverted(lambda bundle, _: tell(bundle["text/plain"])):
                run = panel.measure()
            picture.value = as_img(*panel.picture())
            tell(str(run), "alert")
        except (Exception, KeyboardInterrupt) as why:  # told as a cell tells it
            tell(f"{type(why).__name__}: {why}", "alert")
        finally:
            sliders[0].disabled = False

    sliders = []
    for name, values in panel.values.items():
        ends = {"min": values[0], "max": values[-1], "step": values.step}
        look = {"style": {"description_width": "12em"}, "layout": {"width": "36em"}}
        slider = ipywidgets.IntSlider(panel.setting[name], description=_words(name), **ends, **look)
        slider.observe(partial(turn, name), "value")
        sliders.append(slider)
        ipywidgets.link((sliders[0], "disabled"), (slider, "disabled"))
    button.on_click(press)
    return ipywidgets.VBox([*sliders, button, said, picture])


def _named(figures: float | Figures | None) -> Figures:
    named = figures if isinstance(figures, dict) else {"": nan if figures is None else figures}
    if not all(isinstance(it, Real) for it in named.values()):
        raise LabError(f"{figures!r:.60} is no figure. Expected a number, or numbers by names.")
    return named


def _listed(figures: Figures) -> str:
    known = {name: "no figure" if isnan(it) else number(it) for name, it in figures.items()}
    return ", ".join(f"{value} {name}".strip() for name, value in known.items())


def _words(name: str) -> str:
    return name.replace("_ms", " (ms)").replace("_", " ")


def _stand(setting: dict[str, int]) -> str:
    return ", ".join(f"{_words(name)} {value}" for name, value in setting.items())
