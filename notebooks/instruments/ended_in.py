"""Which requests were in a stall: one stall may hold several."""

from collections.abc import Iterable

import pandas as pd

import labkit as lab


def ended_in(stalls: Iterable[lab.Stall], requests: pd.DataFrame) -> int:
    """How many requests ended while one of the stalls lasted.

    A request ends on the loop. So one that ended while the loop was held has its part in that,
    alone or with others.

    Args:
        stalls: Which ones, such as those at a certain line.
        requests: Those of one offer, of the same run.
    """
    ends = requests.intended_s + requests.latency_ms / 1e3
    spans = [(stall.start_s, stall.start_s + stall.duration_ms / 1e3) for stall in stalls]
    return sum(any(begin < end < over for begin, over in spans) for end in ends)
