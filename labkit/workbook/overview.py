"""The site's first page: what became of each notebook, as a picture and as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

from labkit.show.repairs import Strip, draw_repairs, how_changed, names
from labkit.workbook.report import Result, in_ms

PAGE = """# The asyncpg stall workbook, executed

**SAID** Each line is a repair: how long the slowest of a hundred requests takes (p99), before and
after.

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
    strips, rows = [], [["notebook", "verdict", "p99 before → after (ms)"], ["---"] * 3]
    for result, old in zip_longest(results, committed):
        held = sum(claim["held"] is True for claim in result.claims)
        verdict = f"{result.verdict}: {held} of {len(result.claims)} claims"
        for pairs in zip_longest(result.pairs or [None], old.pairs if old else []):
            strips.append(Strip(result.title, verdict, *pairs))
        link = f"[{_escaped(result.title)}]({result.notebook}.ipynb)"
        rows.append([link, verdict, *(_repairs(it) for it in (result, old) if it)])
    if committed:
        rows[0].append("as committed")
        rows[1].append("---")
    well = sum(result.verdict.startswith("✔") for result in results)
    said = f"{well} of {len(results)} notebooks ran, and all they claim held."
    text = "; ".join(f"{strip.lesson}: {strip.verdict}" for strip in strips)
    page = PAGE.replace("SAID", said).replace("PICTURE", draw_repairs(strips, text))
    return page.replace("TABLE", "\n".join(f"| {' | '.join(row)} |" for row in rows))


def _repairs(result: Result) -> str:
    said = [f"{names(p)}: {in_ms(p)}, {how_changed(p)}" for p in result.pairs]
    return "<br>".join(map(_escaped, said))


def _escaped(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", text)
