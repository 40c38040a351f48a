"""`python -m labkit status`, and `reset --progress`: which exercises are solved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from labkit.errors import LabError
from labkit.exercises import progress
from labkit.workbook.consent import agreed


def status(catalogue: Mapping[str, Sequence[str]]) -> None:
    """Print what became of each exercise of each notebook."""
    entries, states = progress.read(), {True: "✔ solved", False: "tried", None: "untouched"}
    for notebook, names in catalogue.items():
        for name in names:
            print(f"{notebook:<32} {name:<12} {states[entries.get(name)]}")
    print(progress.solved(name for names in catalogue.values() for name in names))
    print(f"This is kept in {progress.place()}, and sent nowhere.")


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
    entries = progress.read()
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
            (progress.place() / name).unlink(missing_ok=True)
    except OSError as error:
        raise LabError(
            f"{progress.place()} cannot be changed: {error.strerror or error}. Expected a "
            "directory of your own. To do: run this as the user who ran the notebooks."
        ) from None
    print("Forgotten.")
    return 0
