"""labkit: a database, an honest load, a probe of the event loop, charts and checks.

`import labkit as lab` is all that a notebook needs. pandas and matplotlib are imported when they
are first used, so that a service that takes only the probe home does not pay for them.
"""

from labkit.charts import compare, gauges, timeline
from labkit.claims import Claim, at_least, verify
from labkit.database import Dsn, database
from labkit.display import show
from labkit.errors import LabError
from labkit.exercises import Exercise, Verdict
from labkit.experiment import measure, measure_pairs
from labkit.figures import bars, dots, lines, stacked
from labkit.load import Load
from labkit.mystery import mystery
from labkit.probe import Probe
from labkit.run import Latency, Run
from labkit.stall import Frame, Stall
from labkit.tables import show_table, stalls, summary

__all__ = [
    "Claim",
    "Dsn",
    "Exercise",
    "Frame",
    "LabError",
    "Latency",
    "Load",
    "Probe",
    "Run",
    "Stall",
    "Verdict",
    "at_least",
    "bars",
    "compare",
    "database",
    "dots",
    "gauges",
    "lines",
    "measure",
    "measure_pairs",
    "mystery",
    "show",
    "show_table",
    "stacked",
    "stalls",
    "summary",
    "timeline",
    "verify",
]
