"""labkit: a database, an honest load, a probe of the event loop, charts and checks.

Of labkit, a notebook imports this face (`import labkit as lab`) and, from `labkit.probe`, what
people take home; no other room. pandas and matplotlib are imported when they are first used, so
that a service that takes only the probe home does not pay for them.
"""

import sys

if not (3, 11) <= sys.version_info < (3, 16):  # before what an older Python cannot read
    sys.exit("labkit needs Python 3.11 to 3.15, and this is {}.{}.".format(*sys.version_info))

from labkit.errors import LabError
from labkit.exercises import Exercise, Verdict
from labkit.measure import (
    Load,
    Machine,
    Run,
    above,
    at_most,
    exactly,
    lower,
    measure,
    measure_pairs,
    none,
    similar,
    verify,
)
from labkit.probe import Frame, Probe, Stall
from labkit.server import Dsn, database
from labkit.show import (
    bars,
    compare,
    gauges,
    knobs,
    lines,
    show,  # from there: the room would otherwise take its place, having the same name
    show_table,
    stalls,
    summary,
    timeline,
)

__all__ = [
    "Dsn",
    "Exercise",
    "Frame",
    "LabError",
    "Load",
    "Machine",
    "Probe",
    "Run",
    "Stall",
    "Verdict",
    "above",
    "at_most",
    "bars",
    "compare",
    "database",
    "exactly",
    "gauges",
    "knobs",
    "lines",
    "lower",
    "measure",
    "measure_pairs",
    "none",
    "show",
    "show_table",
    "similar",
    "stalls",
    "summary",
    "timeline",
    "verify",
]
