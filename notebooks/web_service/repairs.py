"""What each repair changes, as a diff."""

import difflib
from html import escape
from pathlib import Path

import labkit as lab

HERE = Path(__file__).parent


def diff(part: str) -> str:
    """The lines that differ between the sick and the sound version of a part."""
    sick, sound = f"sick/{part}.py", f"sound/{part}.py"
    old, new = ((HERE / name).read_text("utf-8").splitlines() for name in (sick, sound))
    return "\n".join(difflib.unified_diff(old, new, sick, sound, n=1, lineterm=""))


def show(part: str) -> None:
    """Show it, folded away until it is clicked on."""
    text = diff(part)
    fold = f"<details><summary>{part}</summary><pre>{escape(text)}</pre></details>"
    lab.show(text, html=fold)
