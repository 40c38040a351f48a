"""Ask the package index whether each pin has a wheel for each Python, on each platform.

    .venv/bin/python -m tests.wheels

To be run after the locks were made anew, and once a week: a wheel can be withdrawn. What is not
built somewhere would be compiled there, by a learner who has no compiler.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from labkit.exercises import notebooks
from labkit.workbook.bundle import PLATFORMS, pythons

ROOT = notebooks().parent
# As uv calls them. Linux with the glibc of 2018; uv takes macOS 13 and later.
TARGETS = {
    "linux": "x86_64-manylinux_2_28",
    "linux-arm": "aarch64-manylinux_2_28",
    "macos": "aarch64-apple-darwin",
    "macos-intel": "x86_64-apple-darwin",
    "windows": "x86_64-pc-windows-msvc",
}
FROM_SOURCE = "forbiddenfruit"  # of the tests' tools: published without wheels, in plain Python


def without_a_wheel(python: str, platform: str) -> str:
    """Name the first pin of the tests' lock, which holds the other, that has no wheel there."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-deps", "--no-header"]
    command += ["--only-binary=:all:", f"--no-binary={FROM_SOURCE}", f"--python-version={python}"]
    command += [f"--python-platform={TARGETS[platform]}", "tests/requirements.txt"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    if not done.returncode:
        return ""
    found = re.search(r"[Bb]ecause (.+) has no usable wheels", done.stderr)
    return found[1] if found else done.stderr


def main() -> int:
    """Print a line for each Python and platform; return 1 if a wheel is missing."""
    everywhere = [*product(pythons(ROOT), PLATFORMS)]
    missing = 0
    with ThreadPoolExecutor(8) as pool:  # they mostly wait for the network
        for where, pin in zip(
            everywhere, pool.map(without_a_wheel, *zip(*everywhere, strict=True)), strict=True
        ):
            print(f"✘ {' '.join(where)}: {pin}" if pin else f"✔ {' '.join(where)}", flush=True)
            missing += bool(pin)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
