"""Measure a service: offer a load, run a scenario under the probe, keep what was seen, claim.

`load` starts requests on a schedule; `experiment` and `work` run a scenario on a loop of its own in
a thread; `machine` watches how late the machine itself is. `run` holds what was seen, and what a
machine that is never late would have shown; from both, `claims` and `pairs` say what held.
"""

from labkit.measure.claims import VERDICT, above, at_most, exactly, none, verify
from labkit.measure.experiment import TooLong, left_behind, limited, measure, measure_pairs
from labkit.measure.load import Load
from labkit.measure.machine import STARVED, Machine, idle_since
from labkit.measure.pairs import DOUBT, lower, more_failed, partners, similar, spread, typical
from labkit.measure.run import Run, ms
from labkit.measure.work import Scenario, refuse_patched_asyncio

__all__ = [
    "DOUBT",
    "STARVED",
    "VERDICT",
    "Load",
    "Machine",
    "Run",
    "Scenario",
    "TooLong",
    "above",
    "at_most",
    "exactly",
    "idle_since",
    "left_behind",
    "limited",
    "lower",
    "measure",
    "measure_pairs",
    "more_failed",
    "ms",
    "none",
    "partners",
    "refuse_patched_asyncio",
    "similar",
    "spread",
    "typical",
    "verify",
]
