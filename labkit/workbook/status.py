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

    Raises:
        OSError: That file cannot be written.
    """
    entries, states = progress.read(), {True: "solved", False: "tried", None: "untouched"}
    found = [
        {"notebook": notebook, "exercise": name, "state": states[entries.get(name)]}
        for notebook, names in progress.CATALOGUE.items()
        for name in names
    ]
    text = json.dumps(found, indent=1)
    if report == Path("-"):
        print(text)
    elif report is not None:
        report.write_text(f"{text}\n", "utf-8")
    else:
        for row in found:
            mark = "✔ " if row["state"] == "solved" else ""
            print(f"{row['notebook']:<32} {row['exercise']:<12} {mark}{row['state']}")
        print(progress.solved())
        print(f"This is kept in {progress.place()}, and sent nowhere.")
