"""`python -m labkit status`: which exercises are solved."""

import json
import sys
from pathlib import Path

from labkit.exercises import progress

STATES = {True: "solved", False: "tried", None: "untouched"}


def status(report: Path | None = None) -> None:
    """Print what became of each exercise of each notebook; or write it as JSON.

    The JSON is a list with an object for each exercise, in the order of the notebooks. Its keys:
    `notebook`, `exercise`, and `state`, which is "solved", "tried" or "untouched".

    Args:
        report: The file to write the JSON to; `-` prints it.

    Raises:
        OSError: That file cannot be written.
    """
    entries = progress.read()
    found = [
        {"notebook": notebook, "exercise": name, "state": STATES[entries.get(name)]}
        for notebook, names in progress.CATALOGUE.items()
        for name in names
    ]
    if report is not None:
        text = json.dumps(found, indent=1) + "\n"
        if report == Path("-"):
            sys.stdout.write(text)
        else:
            report.write_text(text, "utf-8")
        return
    for row in found:
        state = row["state"].replace("solved", "✔ solved")
        print(f"{row['notebook']:<32} {row['exercise']:<12} {state}")
    print(progress.solved(progress.EXERCISES))
    print(f"This is kept in {progress.place()}, and sent nowhere.")
