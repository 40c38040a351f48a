"""Whether a crowd of calls kept the loop's thread waiting: for `acquire` and `transaction`."""

from labkit.exercises import by_the_clock
from labkit.measure import Run
from labkit.probe.frames import is_users

HELD = 200  # ms; of twenty calls at once, 10 each. A `print` that is flushed in Jupyter takes less


def waited_at_a_line(run: Run) -> None:
    """Raise NotYet if the loop's thread waited for long at a line of the user's own."""
    for stall in run.stalls:
        if stall.cause == "blocked" and stall.own_ms > HELD and is_users(stall.frame):
            seen = (
                f"a line of yours kept the loop's thread waiting, and meanwhile nobody was served: "
                f"{stall}. The lookups of others: {run.latency('lookup')}."
            )
            raise by_the_clock(run, stall.own_ms, seen, stall.own_ms / HELD)
