"""Which exercises are solved: a file for each in the user's data directory, sent nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from labkit.errors import LabError


def place() -> Path:
    """The directory that keeps the progress, whether it is there or not."""
    import platformdirs  # here, so that who takes the probe home need not have it

    home = os.environ.get("LABKIT_HOME") or platformdirs.user_data_dir("labkit", appauthor=False)
    return Path(home).expanduser().resolve() / "progress"


def read() -> dict[str, bool]:
    """For each exercise that was tried, whether it was solved; nothing if that cannot be read."""
    try:
        return {path.name: path.read_bytes() == b"solved" for path in place().iterdir()}
    except OSError:
        return {}


def record(exercise: str, outcome: str) -> str:
    """Record the outcome of a check. Solved stays solved.

    Returns:
        What could not be done, in a sentence; as a rule, "".
    """
    file = place() / exercise
    try:
        place().mkdir(parents=True, exist_ok=True)
        if outcome == "pass":
            file.write_text("solved", "utf-8")
        else:
            file.touch()
    except OSError as error:
        return f"(This was not recorded: {file} cannot be written: {error.strerror or error}.)"
    return ""


def solved(exercises: Iterable[str]) -> str:
    """How many of these exercises are solved, and which, in a sentence."""
    every, entries = list(exercises), read()
    done = [name for name in every if entries.get(name)]
    return (
        f"Solved so far: {len(done)} of {len(every)}" + f" ({', '.join(done)})" * bool(done) + "."
    )


def status(catalogue: Mapping[str, Sequence[str]]) -> None:
    """Print what became of each exercise of each notebook."""
    entries, states = read(), {True: "✔ solved", False: "tried", None: "untouched"}
    for notebook, names in catalogue.items():
        for name in names:
            print(f"{notebook:<32} {name:<12} {states[entries.get(name)]}")
    print(solved(name for names in catalogue.values() for name in names))
    print(f"This is kept in {place()}, and sent nowhere.")


def forget(names: Sequence[str], known: Sequence[str], yes: bool) -> int:
    """Forget what was recorded of some exercises, or of all; say what goes, and ask first.

    Args:
        names: Which exercises; all of them, if there is none.
        known: The exercises that there are.
        yes: Do not ask.

    Returns:
        0: forgotten, or there was nothing; 2: the user said no.

    Raises:
        LabError: No such exercise, nobody is there to ask, or the file cannot be deleted.
    """
    from labkit.reset import agreed

    entries = read()
    if unknown := [name for name in names if name not in {*known, *entries}]:
        raise LabError(
            f"There is no exercise {', '.join(unknown)}. Expected some of: {', '.join(known)}."
        )
    gone = sorted(name for name in entries if not names or name in names)
    if not gone:
        print("Nothing to forget: none of them was tried.")
        return 0
    print(f"This forgets what became of {', '.join(gone)}. Your answers in the notebooks stay.")
    if not agreed("Forget it?", yes):
        return 2
    try:
        for name in gone:
            (place() / name).unlink(missing_ok=True)
    except OSError as error:
        raise LabError(
            f"{place()} cannot be changed: {error.strerror or error}. Expected a directory of your "
            "own. To do: run this as the user who ran the notebooks."
        ) from None
    print("Forgotten.")
    return 0
