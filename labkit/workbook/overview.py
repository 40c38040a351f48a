"""The site's first page: what became of each notebook, as a picture and as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from labkit.show.repairs import Strip, draw_repairs, how_changed, names
from labkit.workbook.report import Result, in_ms, in_sum

MARKUP = re.compile(r"([\\`*_\[\]<>|])")  # of Markdown, in the name of a run
PAGE = """# Each repair, before and after

**SAID** For each repair: how long the slowest of a hundred requests takes (p99), before and after.

``````{raw} html
PICTURE
``````

TABLE
"""


def overview(results: Sequence[Result], committed: Sequence[Result] = ()) -> str:
    """The first page as Markdown: a picture, and a table that says the same.

    Args:
        results: What became of each notebook.
        committed: What was committed of each, if that is something else.
    """
    strips, rows, said = [], [["notebook", "verdict", "p99 before → after (ms)"], ["---"] * 3], ""
    if committed:
        rows = [[*rows[0], "as committed"], ["---"] * 4]
    for result, old in zip_longest(results, committed):
        held = sum(claim["held"] is True for claim in result.claims)
        verdict = f"{result.verdict} ({held} of {len(result.claims)} claims)"
        for pairs in zip_longest(result.pairs or [None], old.pairs if old else []):
            strips.append(Strip(result.title, verdict, *pairs))
        told = [_repairs(one) for one in (result, old) if one]
        cells = ["<br>".join(MARKUP.sub(r"\\\1", one) for one in repairs) for repairs in told]
        rows.append([f"[{result.title}]({result.notebook}.ipynb)", verdict, *cells])
        said += f"{result.title}: {verdict}. {'; '.join(told[0])} "
    page = PAGE.replace("SAID", in_sum(results)).replace("PICTURE", draw_repairs(strips, said))
    return page.replace("TABLE", "\n".join(f"| {' | '.join(row)} |" for row in rows))


def _repairs(result: Result) -> list[str]:
    return [f"{names(pair)}: {in_ms(pair)}, {how_changed(pair)}" for pair in result.pairs]
