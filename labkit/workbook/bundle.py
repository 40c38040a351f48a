"""The workbook and its wheels in one directory, to be installed where there is no network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import exercises
from labkit.errors import LabError
from labkit.workbook import refuse_others_files

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Another machine's answers to the lock's markers, and the tags of wheels that run on it.
_LINUX, _MACOS, _WINDOWS = (
    {"os_name": name, "sys_platform": platform, "implementation_name": "cpython"}
    for name, platform in (("posix", "linux"), ("posix", "darwin"), ("nt", "win32"))
)
# pip knows that a newer macOS runs what was built for an older one, but not so for glibc.
_GLIBC = [*(f"manylinux_2_{minor}" for minor in range(28, 16, -1)), "manylinux2014"]
PLATFORMS = {
    "linux": (_LINUX, [f"{tag}_x86_64" for tag in _GLIBC]),
    "linux-arm": (_LINUX, [f"{tag}_aarch64" for tag in _GLIBC]),
    "macos": (_MACOS, ["macosx_13_0_arm64"]),
    "macos-intel": (_MACOS, ["macosx_13_0_x86_64"]),
    "windows": (_WINDOWS, ["win_amd64"]),
}
PARTS = "README.md", "LICENSE", "requirements.txt", "pyproject.toml", "docker-compose.yml"
INSTALL = Path(__file__).with_name("INSTALL.txt")  # for whoever gets the bundle


def bundle(directory: Path, platform: str | None = None, python: str | None = None) -> None:
    """Put the workbook and the wheels of its lock into a directory; print what to do with it.

    Once more into the same directory adds the wheels for another platform or Python.

    Args:
        directory: A new one, an empty one, or an earlier bundle.
        platform: One of `PLATFORMS`; if there is none, this machine's.
        python: "3.12", for example; if there is none, this Python's.

    Raises:
        LabError: There is no such platform or wheel, or the directory is no bundle.
    """
    python = python or "{}.{}".format(*sys.version_info)
    checkout, wheels = exercises.notebooks().parent, directory / "wheels"
    known = pythons(checkout)
    if platform not in (None, *PLATFORMS) or python not in known:
        raise LabError(
            f"There are no wheels for {platform or 'this machine'} with Python {python}. Expected "
            f"one of the platforms {', '.join(PLATFORMS)}, and of the Pythons {', '.join(known)}."
        )
    refuse_others_files(directory, "INSTALL.txt", "wheels")
    wheels.mkdir(parents=True, exist_ok=True)
    shutil.copy(INSTALL, directory)  # first: a bundle that was broken off is one, too
    wanted = pins(checkout, platform, python)
    print(f"Downloading {len(wanted)} wheels …", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels)]
    command += ["--no-deps", "--only-binary=:all:", f"--python-version={python}"]
    command += [f"--platform={tag}" for tag in (PLATFORMS[platform][1] if platform else [])]
    done = subprocess.run(
        [*command, *wanted], capture_output=True, encoding="utf-8", errors="replace"
    )
    if done.returncode:
        # No more than that: what pip says before it may name a private index.
        said = re.findall(r"^ERROR: (No matching .*)", done.stderr, re.MULTILINE)
        raise LabError(
            f"pip could not download the wheels: {(said or ['see `pip download`'])[-1]}. "
            f"Expected one for {platform or 'this machine'} and Python {python}. To do: check "
            "the network, or name another Python."
        )
    for part in PARTS:
        shutil.copy(checkout / part, directory)
    left_out = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    for part in "labkit", "notebooks":
        shutil.rmtree(directory / part, ignore_errors=True)  # an earlier one may have had more
        shutil.copytree(checkout / part, directory / part, ignore=left_out)
    print(f"{directory} is ready for Python {python}.\n\n{INSTALL.read_text('utf-8')}", end="")


def pythons(checkout: Path) -> list[str]:
    """Return the Pythons that the lock is for: "3.11" and later."""
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["project"]
    allowed = SpecifierSet(project["requires-python"])
    return [python for python in (f"3.{minor}" for minor in range(100)) if python in allowed]


def locked(checkout: Path, machine: Mapping[str, str] | None = None) -> list[Requirement]:
    """Return what the lock asks of this machine, or of one that answers its markers otherwise."""
    from packaging.requirements import Requirement  # here: doctor says if it is missing

    lines = (checkout / "requirements.txt").read_text("utf-8").splitlines()
    every = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    return [pin for pin in every if pin.marker is None or pin.marker.evaluate(dict(machine or {}))]


def pins(checkout: Path, platform: str | None, python: str) -> list[str]:
    """Return the lock's pins for a platform and a Python, and what builds labkit, its `-e .`.

    pip evaluates markers for the machine that it runs on, whatever `--platform` says.
    """
    there = {"python_version": python, "python_full_version": f"{python}.0"}
    there |= PLATFORMS[platform][0] if platform else {}
    build = tomllib.loads((checkout / "pyproject.toml").read_text("utf-8"))["build-system"]
    return [*build["requires"], *(f"{pin.name}{pin.specifier}" for pin in locked(checkout, there))]
