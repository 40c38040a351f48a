"""The probe: it watches an event loop and names the line that held it.

It is what you take home, so it needs nothing but the standard library. `watch` times the loop and
looks at its thread; `stall` decides, from what was seen, on a cause and a line.
"""

from labkit.probe.stall import Frame, Stall, users_frame, walk
from labkit.probe.watch import Probe

__all__ = ["Frame", "Probe", "Stall", "users_frame", "walk"]
