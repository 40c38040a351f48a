"""The tests that ran in a second process, beside the others."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tests.conftest import BESIDE, Beside


def test_what_mostly_waits_has_passed(tests_beside: Beside | None) -> None:
    if tests_beside is None:
        pytest.skip("these tests run beside others only if the whole suite is run")
    tests_beside.wait()
    cases = ElementTree.parse(tests_beside.report).getroot().iter("testcase")
    files = {case.attrib["classname"].removeprefix("tests.").replace(".", "/") for case in cases}
    assert {f"{file}.py" for file in files} == BESIDE
