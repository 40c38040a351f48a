"""`python -m labkit status`: which exercises are solved."""

import json
from pathlib import Path

from labkit.exercises import progress


def status(report: Path | None = None) -> None:
    """Print what became of each exercise of each notebook, or give it as JSON.

    The JSON is a list with an object for each exercise, in the order of the notebooks. Its keys are
    `notebook`, `exercise` and `state`, which is "solved", "tried" or "untouched".

    Args:
        report: The file to write the JSON to; `-` prints it.
    """
    place, entries = progress.place(), progress.read()
    states = {True: "solved", False: "tried", None: "untouched"}
    found = [
        {"notebook": notebook, "exercise": name, "state": states[entries.get(name)]}
        for notebook, names in progress.CATALOGUE.items()
        for name in names
    ]
    if report is None:
        for row in found:
            mark = "✔ " if row["state"] == "solved" else ""
            print(f"{row['notebook']:<32} {row['exercise']:<12} {mark}{row['state']}")
        print(f"{progress.solved()}\nThis is kept in {place}, and sent nowhere.")
    elif report == Path("-"):
        print(json.dumps(found, indent=1))
    else:
        report.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
