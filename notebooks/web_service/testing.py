"""Runs `test_endpoints.py` on several versions of the service, as a developer would."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from labkit.errors import LabError
from web_service.process import environment_of_its_own

TESTS = Path(__file__).with_name("test_endpoints.py")
# Not with the workbook's own settings, nor with a cache beside the notebooks.
PYTEST = ["-m", "pytest", "-rA", "-p", "no:cacheprovider", "--color=no"]
PYTEST += ["-o", "addopts=", "-o", "filterwarnings="]

Outcomes = dict[tuple[str, str, str], str]


def run_on(versions: Mapping[str, Iterable[str]], dsn: str) -> Outcomes:
    """Test each version, all at once, each in a process of its own.

    Args:
        versions: For each version's name, its repaired parts.
        dsn: Which PostgreSQL.

    Returns:
        For each version, test and endpoint: "PASSED", "FAILED" or "ERROR". A test whose tool is
        not installed is skipped, and is not in it.

    Raises:
        LabError: The service itself does not answer, so its tests tell nothing.
        RuntimeError: pytest could not run; the text is what it said.
    """
    # Where no terminal is, pytest cuts what it says to 80 columns.
    env = environment_of_its_own() | {"WEB_SERVICE_DSN": dsn[:], "COLUMNS": "400"}
    running = {
        name: subprocess.Popen(
            [sys.executable, *PYTEST, str(TESTS)],
            env=env | {"WEB_SERVICE_REPAIRED": " ".join(repaired)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        for name, repaired in versions.items()
    }
    try:
        return {
            (name, test, endpoint): outcome
            for name, process in running.items()
            for outcome, test, endpoint in _outcomes(process)
        }
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def _outcomes(process: subprocess.Popen[str]) -> list[tuple[str, str, str]]:
    said, _ = process.communicate()
    line = r"^(PASSED|FAILED|ERROR) \S*::(\w+)\[([^\]]+)\](?: - (.*))?"
    found = re.findall(line, said, re.MULTILINE)
    if not found:
        raise RuntimeError(f"pytest did not run: {said[-1000:]}")
    for outcome, test, endpoint, why in found:
        if (outcome, test) == ("FAILED", "test_it_answers"):
            raise LabError(
                f"The tests were not judged: the service itself does not answer ({endpoint}): "
                f"{why or 'pytest does not say why'}. Expected an answer where no detector "
                "watches. To do: see to that first, and run the cell again."
            )
    return [(outcome, test, endpoint) for outcome, test, endpoint, _ in found]
