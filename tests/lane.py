"""Tests that ask no clock run in a process of their own, beside the others.

That process writes its reports to a file, and the first one passes them on as its own when it comes
to these tests. So nobody has to read two outputs, and nothing is run twice.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

REPORTS = "LABKIT_TESTS_REPORTS"  # where the process beside writes them


class Lane:
    """A process that runs these tests, from now on, and a plugin that reports them."""

    def __init__(self, tests: list[pytest.Item]) -> None:
        self.tests, self._place = {*tests}, tempfile.TemporaryDirectory(prefix="labkit-lane-")
        names, self.reports, self.output = (
            Path(self._place.name) / name for name in ("names", "reports", "output")
        )
        names.write_text("\n".join(test.nodeid for test in tests), "utf-8")
        command = [sys.executable, "-m", "pytest", "-p", __name__, f"@{names}"]
        self.reports.touch()
        with self.output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=tests[0].config.rootpath,
                # Options are for the process that a person has started: `--pdb`, `--junitxml`.
                env=os.environ | {REPORTS: str(self.reports), "PYTEST_ADDOPTS": ""},
                stdout=output,
                stderr=output,
                start_new_session=True,  # a terminal's Ctrl-C comes once, from here
            )

    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if item not in self.tests:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_on(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        item.session._setupstate.teardown_exact(nextitem)  # as after each test that is run here
        return True

    def _reports_on(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        while True:
            ended = self._process.poll() is not None  # before the last look
            lines = self.reports.read_text("utf-8").splitlines(keepends=True)
            data = [json.loads(line) for line in lines if line.endswith("\n")]
            mine = [each for each in data if each["nodeid"] == item.nodeid]
            if mine and mine[-1]["when"] == "teardown":
                break
            if ended:
                said = self.output.read_text("utf-8", "replace")
                raise RuntimeError(f"the process beside has not run {item.nodeid}:\n{said}")
            time.sleep(0.1)
        hook = item.config.hook
        for each in mine:
            yield hook.pytest_report_from_serializable(config=item.config, data=each)

    def pytest_sessionfinish(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait()
        self._place.cleanup()


class _Writer:
    """In the process beside, whose plugin this module is."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self.config.hook
        data = hook.pytest_report_to_serializable(config=self.config, report=report)
        with Path(os.environ[REPORTS]).open("a", encoding="utf-8") as reports:
            reports.write(json.dumps(data) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Writer(config))
