"""Run the workbook as a whole: the commands of `python -m labkit`, a module each.

Only the command line calls them; no notebook does. Each is imported when its command is given, so
that `doctor` can say which package is missing.
"""

from pathlib import Path

from labkit.errors import LabError


def refuse_others_files(directory: Path, *made: str) -> None:
    """Find out whether a command may write there: a new directory, an empty one, or one of its own.

    Raises:
        LabError: There is something in it, but not all that such a command has made.
    """
    earlier = all((directory / name).exists() for name in made)
    if directory.exists() and any(directory.iterdir()) and not earlier:
        raise LabError(
            f"{directory} has something else in it. Expected a new directory, or one that this "
            "command made earlier. To do: name another one."
        )
