"""Ask before something is deleted."""

from __future__ import annotations

import contextlib
import sys

from labkit.errors import LabError


def agreed(question: str, yes: bool) -> bool:
    """Ask the user, unless they have agreed in advance."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise LabError(
            "Nothing was changed: there is nobody to ask. Expected a terminal, or consent given "
            "in advance. To do: run the same command in a terminal, or add --yes."
        )
    with contextlib.suppress(EOFError):
        if input(f"{question} [y/N] ").strip().lower() in ("y", "yes"):
            return True
    print("Nothing was changed.")
    return False
