import math
from types import SimpleNamespace
from typing import Any

import IPython.display
import numpy as np
import pytest

from labkit import Claim, Run, at_least, measure, verify
from labkit.measure.load import Load, Request


def a_run(*latencies_ms: float, noise_ms: float = 0.0, name: str = "a run", **more: Any) -> Run:
    """A run of lookups with these latencies, one every 10 ms."""
    requests = [
        Request("lookup", i / 100, i / 100, i / 100 + latency / 1e3, None)
        for i, latency in enumerate(latencies_ms)
    ]
    fields: dict[str, Any] = {
        "victim": "lookup",
        "seconds": len(latencies_ms) / 100,
        "debug": False,
        "stalls": (),
        "warnings": (),
        "_requests": requests,
        "_spans": [],
        "_readings": [],
        "_lag": [],
    }
    return Run(name=name, noise_ms=noise_ms, **(fields | more))


class Notebook:
    """Stands for a Jupyter kernel, and keeps what is displayed there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[tuple[dict[str, Any], dict[str, Any]]] = []
        compiler = SimpleNamespace(format_code_name=lambda file: None)
        shell = SimpleNamespace(kernel=True, compile=compiler)
        monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
        monkeypatch.setattr(IPython.display, "display", self._display)

    def _display(self, bundle: dict[str, Any], *, raw: bool, metadata: dict[str, Any]) -> None:
        assert raw
        self.shown.append((bundle, metadata))


def p99(run: Run) -> float:
    return run.latency().p99


def claim(times: float, before: Any, after: Any) -> Claim:
    return at_least("p99 is smaller", times, before, after, p99)


# At least so many times smaller.


def test_a_claim_is_not_broken_where_no_processor_was_idle() -> None:
    assert claim(20, a_run(100), a_run(50)).held is False
    assert claim(20, a_run(100), a_run(50, idle=0.05)).held is None
    assert claim(20, a_run(100), a_run(2, idle=0.05)).held is True


def test_a_claim_holds_where_the_figures_reach_it() -> None:
    assert claim(20, a_run(100), a_run(2)) == Claim("p99 is smaller", True, "50×, 100 → 2.0 ms")


def test_a_claim_is_broken_where_they_do_not() -> None:
    assert claim(20, a_run(100), a_run(10)) == Claim("p99 is smaller", False, "10×, 100 → 10.0 ms")


@pytest.mark.parametrize(
    ("noise_before", "noise_after", "held"),
    [
        (0, 0, True),  # 100 / 4 = 25
        (19.9, 0, True),  # at least (100 - 19.9) / 4 = 20.02
        (20.1, 0, None),  # 79.9 / 4 = 19.98
        (0, 3.9, True),  # noise after can only make it smaller: at least 100 / 4
    ],
)
def test_noise_that_could_lower_it_below_makes_it_inconclusive(
    noise_before: float, noise_after: float, held: bool | None
) -> None:
    before, after = a_run(100, noise_ms=noise_before), a_run(4, noise_ms=noise_after)
    assert claim(20, before, after).held is held


@pytest.mark.parametrize(
    ("noise_after", "held"),
    [
        (0, False),  # 100 / 10 = 10
        (0.98, False),  # at most 100 / (10 - 5 * 0.98) = 19.6
        (1.02, None),  # 100 / 4.9 = 20.4
        (2, None),  # it may be nothing at all
        (3, None),
    ],
)
def test_noise_that_could_raise_it_above_makes_it_inconclusive(
    noise_after: float, held: bool | None
) -> None:
    found = claim(20, a_run(100), a_run(10, noise_max_ms=noise_after))
    assert found.held is held


def test_of_several_pairs_the_one_in_the_middle_decides_and_is_shown() -> None:
    befores = [a_run(100), a_run(90), a_run(80)]
    found = claim(40, befores, [a_run(1), a_run(2), a_run(8)])  # 100, 45 and 10 times
    assert (found.held, found.figure) == (
        True,
        "45× (median of 3 pairs, 10× to 100×), 90.0 → 2.0 ms",
    )
    # One pair did reach 50: not enough to hold, and too much to be called broken.
    assert claim(50, befores, [a_run(1), a_run(2), a_run(8)]).held is None
    assert claim(101, befores, [a_run(1), a_run(2), a_run(8)]).held is False


def test_of_several_pairs_a_noisy_middle_is_inconclusive() -> None:
    noisy = [a_run(90, noise_ms=11) for _ in range(3)]  # 45 times, or as few as 39.5
    assert claim(40, noisy, [a_run(2)] * 3).held is None
    assert claim(40, [noisy[0], a_run(90), a_run(90)], [a_run(2)] * 3).held is True


def test_numpys_truth_counts_as_truth(capsys: pytest.CaptureFixture[str]) -> None:
    yes, no = np.array([True, False])
    claims: Any = ("it is so", yes, "1"), ("it is not", no, "0")
    verify(*claims)
    assert capsys.readouterr().out == "✔ held: it is so (1)\n✘ broken: it is not (0)\n"


def test_pairs_that_all_fall_short_are_broken() -> None:
    assert claim(20, [a_run(100), a_run(100)], [a_run(20), a_run(10)]).held is False


def test_each_run_needs_its_partner() -> None:
    with pytest.raises(ValueError, match="zip"):
        claim(20, [a_run(100), a_run(100)], a_run(2))


def test_figures_of_real_runs_can_be_claimed() -> None:
    async def no_op() -> None:
        pass

    async def scenario(load: Load) -> None:
        load.offer("lookup", no_op, rate=50)
        await load.run(seconds=0.2)

    run = measure(scenario)
    assert at_least("it is what it is", 0.01, run, run, p99).held in (True, None)


# Shown.

CLAIMS = (
    Claim("p99 is <20 times> smaller", True, "50×"),
    ("one connection is opened", False, "7 connections"),
    ("it is quicker", None, "1.1×"),
)
VERDICTS = """\
✔ held: p99 is <20 times> smaller (50×)
✘ broken: one connection is opened (7 connections)
? inconclusive: it is quicker (1.1×; this machine is busy, or shared: run it again)
"""


def test_claims_are_printed_with_verdict_and_figure(capsys: pytest.CaptureFixture[str]) -> None:
    verify(*CLAIMS)
    assert capsys.readouterr().out == VERDICTS


def test_in_a_notebook_claims_are_a_table_and_data_for_the_scoreboard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = Notebook(monkeypatch)
    verify(*CLAIMS)
    [(bundle, metadata)] = notebook.shown
    assert bundle["text/plain"] == VERDICTS.strip()
    assert bundle["text/html"].count("<tr>") == 4
    assert "p99 is &lt;20 times&gt; smaller" in bundle["text/html"]
    assert metadata == {
        "labkit": {
            "claims": [
                {"claim": "p99 is <20 times> smaller", "held": True, "figure": "50×"},
                {"claim": "one connection is opened", "held": False, "figure": "7 connections"},
                {"claim": "it is quicker", "held": None, "figure": "1.1×"},
            ]
        }
    }
    assert capsys.readouterr().out == ""


def test_a_figure_that_is_none_breaks_the_claim_and_blames_no_machine() -> None:
    none = a_run(math.nan)
    assert claim(20, a_run(100), none) == Claim(
        "p99 is smaller", False, "no figure: no such request completed"
    )


def test_a_figure_that_has_gone_to_nothing_holds() -> None:
    before, after = a_run(100), a_run(1)
    result = at_least("it is gone", 20, before, after, lambda run: 100.0 * (run is before))
    assert result.held is True
