"""Measure a service: offer a load, run a scenario under the probe, keep what was seen, claim.

`load` starts requests on a schedule, `experiment` runs a scenario on a loop of its own, `run` holds
what was seen, and `claims` says what held. Nothing here draws.
"""

from labkit.measure.claims import (
    Claim,
    above,
    as_runs,
    at_least,
    at_most,
    exactly,
    higher,
    lower,
    none,
    partners,
    similar,
    spread,
    typical,
    verify,
)
from labkit.measure.experiment import (
    Scenario,
    TooLong,
    left_behind,
    limited,
    measure,
    measure_pairs,
    refuse_patched_asyncio,
)
from labkit.measure.load import Load
from labkit.measure.machine import Machine
from labkit.measure.run import Latency, Run, ms

__all__ = [
    "Claim",
    "Latency",
    "Load",
    "Machine",
    "Run",
    "Scenario",
    "TooLong",
    "above",
    "as_runs",
    "at_least",
    "at_most",
    "exactly",
    "higher",
    "left_behind",
    "limited",
    "lower",
    "measure",
    "measure_pairs",
    "ms",
    "none",
    "partners",
    "refuse_patched_asyncio",
    "similar",
    "spread",
    "typical",
    "verify",
]
