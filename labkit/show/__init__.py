"""Show what was measured: pictures and tables, each with a text that says the same.

`charts` draws runs, `figures` draws plain numbers, `tables` tabulates; `knobs` lets the reader turn
what is measured. A new kind of picture goes here: `figures.panels` and `figures.save` give it the
workbook's look and its text.
"""

from labkit.display import show
from labkit.show.charts import compare, gauges, timeline
from labkit.show.figures import bars, lines
from labkit.show.knobs import knobs
from labkit.show.tables import show_table, stalls, summary

__all__ = [
    "bars",
    "compare",
    "gauges",
    "knobs",
    "lines",
    "show",
    "show_table",
    "stalls",
    "summary",
    "timeline",
]
