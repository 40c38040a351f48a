"""What each repair changes, as a diff."""

import difflib
from pathlib import Path

HERE = Path(__file__).parent


def diff(part: str) -> str:
    """The lines that differ between the sick and the sound version of a part."""
    sick, sound = f"sick/{part}.py", f"sound/{part}.py"
    old, new = ((HERE / name).read_text("utf-8").splitlines() for name in (sick, sound))
    return "\n".join(difflib.unified_diff(old, new, sick, sound, n=1, lineterm=""))
