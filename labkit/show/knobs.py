"""Knobs to turn: a prediction that moves with them, and a button that really measures."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial, update_wrapper
from html import escape
from itertools import cycle, product
from typing import Any

from labkit.display import attended, call_interruptibly, diverted, number, put, show
from labkit.errors import LabError
from labkit.measure import Run, measure
from labkit.show.figures import BLUE, PREDICTED, VERMILION, panels, save

Setting = dict[str, int]  # where each knob stands
Figures = dict[str, float]

_MARKS = ((BLUE, "o", ":"), (VERMILION, "s", "-."))
# ipywidgets gives a slider's handle no name: a screen reader would only say "slider, 120".
_NAMES = """<script>new MutationObserver(() =>
    document.querySelectorAll(".widget-hslider [role=slider]:not([aria-label])").forEach(handle =>
        handle.ariaLabel = handle.closest(".widget-hslider").querySelector("label").textContent)
).observe(document.body, {childList: true, subtree: true})</script>"""


def knobs(
    scenario: Callable[..., Awaitable[object]],
    *,
    predict: Callable[..., float | Figures],
    read: Callable[[Run], float | Figures],
    unit: str,
    **ranges: tuple[int, int, int],
) -> None:
    """Measure a scenario at its default setting, and let the reader turn its knobs.

    The prediction is drawn over the first knob's range. "Measure" measures where the knobs stand,
    for as long as the scenario runs its load; the setting before stays in the picture. Where nobody
    can press a button (`labkit run`, a page, no ipywidgets), the picture is all there is.

    Args:
        scenario: An `async def scenario(load, freeze_ms=120)`: the knobs are its arguments.
        predict: A formula with the same arguments: the figure, or several by their names.
        read: The same of a run that was measured.
        unit: What the figures are, with their unit: "p99 (ms)".
        ranges: For each knob its lowest value, its highest, and the step between.

    Raises:
        LabError: A knob is none of the scenario's arguments, or its default is none of its values;
            and what `measure` raises.
    """
    arguments = inspect.signature(scenario).parameters
    values = {name: range(low, high + 1, by) for name, (low, high, by) in ranges.items()}
    setting = {name: arguments[name].default for name in ranges if name in arguments}
    for name in ranges:
        if setting.get(name) not in values[name]:
            raise LabError(
                f"knobs() was given {name}={ranges[name]}: lowest, highest, step. Expected one of "
                f"these values as a default: `async def scenario(load, {name}={values[name][0]})`."
            )
    panel = Knobs(scenario, predict, read, unit, values, setting)
    panel.measure()
    bundle, metadata = panel.picture()
    if attended():
        show("Turn a knob, look at the prediction, and measure.", html=_NAMES)
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
    setting: Setting
    seen: list[tuple[Setting, Figures]] = field(default_factory=list)

    def measure(self) -> Run:
        """Measure where the knobs stand; raises what `labkit.measure` raises."""
        setting = self.setting  # a knob may be turned meanwhile
        run = measure(update_wrapper(partial(self.scenario, **setting), self.scenario))
        self.seen.append((setting, _named(self.read(run))))
        return run

    def picture(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The prediction, what was measured there, and the last other setting as a ghost."""
        now = [one for one in self.seen if one[0] == self.setting] or [(self.setting, {})]
        figure, [axes] = panels(height=3.7)
        title = f"{self.unit}: {self._said(*now[-1])}"
        text = f"{title}. The knobs: {_stand(self.setting)}."
        for setting, figures in [one for one in self.seen if one[0] != self.setting][-1:]:
            self._draw(axes, setting, figures, ghost=True)
            title += f" ({_listed(figures)} before)"
            text += f" Before: {self._said(setting, figures)}, at {_stand(setting)}."
        self._draw(axes, *now[-1])
        axes.set(xlabel=_words(next(iter(self.values))), ylabel=self.unit)
        # As high as any setting needs: a knob moves the figures, and not the axis.
        everywhere = [zip(self.values, at, strict=True) for at in product(*self.values.values())]
        highest = max(max(self._pencil(dict(setting)).values()) for setting in everywhere)
        axes.set_ylim(0, 1.15 * max(highest, axes.dataLim.y1))
        shown: list[tuple[dict[str, Any], dict[str, Any]]] = []
        with diverted(lambda *output: shown.append(output)):
            save(figure, title, text)
        return shown[0]

    def _pencil(self, setting: Setting) -> Figures:
        return _named(self.predict(**setting))

    def _said(self, setting: Setting, figures: Figures) -> str:
        measured = f"{_listed(figures)} measured" if figures else "not measured yet"
        return f"{_listed(self._pencil(setting))} by pencil; {measured}"

    def _draw(self, axes: Any, setting: Setting, figures: Figures, ghost: bool = False) -> None:
        """Draw the formula over the first knob, and what was measured."""
        x, values = next(iter(self.values.items()))
        line = [self._pencil(setting | {x: at}) for at in values]
        pale: dict[str, Any] = {"alpha": 0.3 if ghost else 1.0}
        pencil: dict[str, Any] = {"color": PREDICTED, "zorder": 4, **pale}
        here: dict[str, Any] = {"marker": "D", "markevery": [values.index(setting[x])], "mec": "w"}
        for name, (_, _, dashes) in zip(line[0], cycle(_MARKS)):
            ys, label = [at[name] for at in line], "by pencil: a formula, not measured"
            axes.plot(values, ys, ls=dashes, lw=2, label=label, **here, **pencil)
            axes.text(values[-1], ys[-1], f"  {name}", va="center", **pencil)
        for (name, seen), (colour, mark, _) in zip(figures.items(), cycle(_MARKS)):
            label = "measured before" if ghost else f"measured {name}"
            axes.plot(setting[x], seen, mark, ms=13, color=colour, label=label, **pale)


def controls(panel: Knobs) -> Any:
    """The sliders, the button, what it says, and the picture, as a box of ipywidgets."""
    import ipywidgets

    said, picture = ipywidgets.HTML(), ipywidgets.HTML()
    button = ipywidgets.Button(description="Measure")

    def tell(words: str, role: str = "none") -> None:
        # It is replaced as a whole: then a screen reader reads an alert, and no other live region.
        said.value = f'<p role="{role}" style="white-space: pre-wrap">{escape(words)}</p>'

    def redraw() -> None:
        bundle, metadata = panel.picture()
        alt, width = escape(bundle["text/plain"]), metadata["image/png"]["width"]
        png = f"data:image/png;base64,{base64.b64encode(bundle['image/png']).decode()}"
        picture.value = f'<img alt="{alt}" width="{width}" style="max-width: 100%" src="{png}">'

    def turn(name: str, change: Any) -> None:
        panel.setting = panel.setting | {name: change["new"]}
        redraw()

    def press(_: Any) -> None:
        if not sliders[0].disabled:  # not the button: it would lose the keyboard's focus
            for slider in sliders:
                slider.disabled = True
            call_interruptibly(measure_here)

    def measure_here() -> None:
        try:
            with diverted(lambda bundle, _: tell(bundle["text/plain"])):
                run = panel.measure()
            redraw()
            tell(str(run), "alert")
        except (Exception, KeyboardInterrupt) as why:  # told as a cell tells it
            tell(f"{type(why).__name__}: {why}", "alert")
        finally:
            for slider in sliders:
                slider.disabled = False

    sliders = []
    for name, values in panel.values.items():
        ends = {"min": values[0], "max": values[-1], "step": values.step}
        look = {"style": {"description_width": "12em"}, "layout": {"width": "36em"}}
        slider = ipywidgets.IntSlider(panel.setting[name], description=_words(name), **ends, **look)
        slider.observe(partial(turn, name), "value")
        sliders.append(slider)
    button.on_click(press)
    redraw()
    return ipywidgets.VBox([*sliders, button, said, picture])


def _named(figures: float | Figures) -> Figures:
    return figures if isinstance(figures, dict) else {"": figures}


def _listed(figures: Figures) -> str:
    return ", ".join(f"{number(value)} {name}".strip() for name, value in figures.items())


def _words(name: str) -> str:
    return name.replace("_ms", " (ms)").replace("_", " ")


def _stand(setting: Setting) -> str:
    return ", ".join(f"{_words(name)} {value}" for name, value in setting.items())
