"""Ask the package index whether each pin has a wheel for each Python, on each platform.

    .venv/bin/python -m tests.wheels

To be run after the locks were made anew, and once a week: a wheel can be withdrawn. What is not
built somewhere would be compiled there, by a learner who has no compiler.
"""

import re
import subprocess
import sys

from labkit.exercises import notebooks
from labkit.workbook.bundle import PLATFORMS, pythons

ROOT = notebooks().parent
LOCKS = "requirements.txt", "tests/requirements.txt"
# As uv calls them; the oldest Linux with a glibc of 2018.
TARGETS = {
    "linux": "x86_64-manylinux_2_28",
    "linux-arm": "aarch64-manylinux_2_28",
    "macos": "aarch64-apple-darwin",
    "macos-intel": "x86_64-apple-darwin",
    "windows": "x86_64-pc-windows-msvc",
}


def without_a_wheel(lock: str, python: str, platform: str) -> str:
    """Name the first pin that has no wheel there; "" if there is none."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--no-header", f"--python-version={python}"]
    command += [f"--python-platform={TARGETS[platform]}", lock]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    if not done.returncode:
        return ""
    found = re.search(r"[Bb]ecause (\S+) has no", done.stderr)
    return found[1] if found else done.stderr


def main() -> int:
    """Print a line for each lock, Python and platform; return 1 if anything is missing."""
    missing = 0
    for lock in LOCKS:
        for python in pythons(ROOT):
            for platform in PLATFORMS:
                pin = without_a_wheel(lock, python, platform)
                print(f"{'✘' if pin else '✔'} {lock}: Python {python}, {platform} {pin}".rstrip())
                missing += bool(pin)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
