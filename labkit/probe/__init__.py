"""The probe: it watches an event loop and names the line that held it.

It is what you take home, so it needs nothing but the standard library. `timing` times the loop;
`looks` looks at it while it is overdue; `meters` and `suspects` tell what else ran meanwhile;
`verdict` decides on a cause and a line, with `origin` for whose work it was. `watch` is the door;
`summary` and `log` tell of it. `python -m labkit.probe` watches any program, and one that runs
already.
"""

from labkit.probe.frames import Frame, users_frame, walk
from labkit.probe.meters import thread_cpu
from labkit.probe.stall import ADVICE, Stall
from labkit.probe.summary import Summary
from labkit.probe.watch import Probe

__all__ = ["ADVICE", "Frame", "Probe", "Stall", "Summary", "thread_cpu", "users_frame", "walk"]
