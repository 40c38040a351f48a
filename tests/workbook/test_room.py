"""A room full of learners: on one machine, with one facilitator."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat

from labkit.exercises import notebooks
from labkit.workbook.kernel import execute
from labkit.workbook.report import results_of

LEARNERS = 10


def up_to_the_first_verdict(start: str) -> Any:
    """The notebook whose name begins so, without outputs and without what comes later."""
    [path] = notebooks().glob(f"{start}_*.ipynb")
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    verdict = next(i for i, cell in enumerate(notebook.cells) if "lab.verify(" in cell.source)
    del notebook.cells[verdict + 1 :]
    for cell in notebook.cells:
        cell.update({"outputs": []} if cell.cell_type == "code" else {})
    return notebook


def test_ten_kernels_at_once_neither_fail_nor_judge_falsely(dsn: str) -> None:
    """Half of them in notebook 00 and half in 07, on one server."""
    room = [up_to_the_first_verdict("07" if n % 2 else "00") for n in range(LEARNERS)]

    def learn(notebook: Any) -> None:
        try:
            execute(notebook, notebooks())
        except RuntimeError as error:
            if "before replying" not in str(error):
                raise
            # Somebody's connection had taken a port, between Jupyter's choice and the kernel's use.
            execute(notebook, notebooks())

    with ThreadPoolExecutor(LEARNERS) as learners:
        list(learners.map(learn, room))
    results = [result for notebook in room for result in results_of({Path(): notebook})]
    assert all(result.claims for result in results)
    # None is "inconclusive: the machine is busy", which is the truth here. False would be none.
    assert [] == [claim for r in results for claim in r.claims if claim["held"] is False]


def test_the_facilitators_plans_add_up_and_lead_somewhere() -> None:
    text = (notebooks() / "FACILITATOR.md").read_text("utf-8")
    for plan in re.findall(r"^## (?:Half a day|A full day)\n(.*?)(?=^## )", text, re.M | re.S):
        minutes = [int(found) for found in re.findall(r"^\| (\d+) \|", plan, re.MULTILINE)]
        assert f"\n{sum(minutes)} minutes.\n" in plan
    assert 2 == text.count(" minutes.\n")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [] == [link for link in links if not (notebooks() / link.partition("#")[0]).exists()]
    known = {path.stem for path in (notebooks() / "exercises").glob("*.py")}
    assert known == set(re.findall(r"^\| \d\d `(\w+)` \|", text, re.MULTILINE))
