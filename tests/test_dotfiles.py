"""What installs the workbook: its dependencies, a dev container, Binder, GitHub's runners."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from importlib.metadata import packages_distributions
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from labkit.exercises import notebooks
from labkit.workbook.bundle import PLATFORMS, locked, pythons

ROOT = notebooks().parent
README = (ROOT / "README.md").read_text("utf-8")
PYTHONS = pythons(ROOT)
TEST = re.findall(r"^py.* -m pytest$", README, re.MULTILINE)  # python3 …, and Windows' py …


def test_what_labkit_imports_is_declared() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in (ROOT / "labkit").rglob("*.py")]
    steps = [step for tree in trees for step in ast.walk(tree)]
    names = {alias.name for step in steps if isinstance(step, ast.Import) for alias in step.names}
    names |= {step.module or "" for step in steps if isinstance(step, ast.ImportFrom)}
    modules = {name.partition(".")[0] for name in names} - {"labkit"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split("[<>=]", line)[0] for line in project["dependencies"]}
    known = packages_distributions()
    foreign = {
        known[module][0].lower().replace("_", "-") for module in modules - sys.stdlib_module_names
    }
    assert foreign - declared == set()


def test_the_dev_container_installs_as_the_readme_does() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text("utf-8"))
    install = container["postCreateCommand"]
    assert f"\n{install} && .venv/bin/python -m labkit run\n" in README
    interpreter = container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert interpreter.removeprefix("${workspaceFolder}/") in install.replace("pip", "python")
    assert re.fullmatch(r"python:(.*)-bookworm", container["image"])[1] in PYTHONS  # type: ignore[index]


def test_binder_installs_the_lock() -> None:
    # Where there is a .binder/, it looks for all of its files there.
    lock = (ROOT / ".binder/requirements.txt").read_text("utf-8").removeprefix("-r ").strip()
    assert ROOT / "requirements.txt" == (ROOT / ".binder" / lock).resolve()
    runtime = (ROOT / ".binder/runtime.txt").read_text("utf-8")
    assert runtime.strip().removeprefix("python-") in PYTHONS


def test_the_weekly_workflow_tests_as_the_readme_does_on_every_system_and_python() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text("utf-8"))
    job = workflow["jobs"]["test"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert 2 == len(TEST)
    newest = [command.replace("-r tests/requirements.txt", '-e ".[test]"') for command in TEST]
    assert [*TEST, *newest] == commands
    assert PYTHONS == job["strategy"]["matrix"]["python"]
    assert len(PLATFORMS) == len(job["strategy"]["matrix"]["os"])
    assert ".venv/bin/python -m tests.wheels" in [
        s.get("run") for s in workflow["jobs"]["wheels"]["steps"]
    ]
    assert {"push", "schedule"} <= workflow[True].keys()  # YAML 1.1 reads `on` as True


def pins(lock: str) -> list[str]:
    """Of a lock, the lines that pin a package."""
    return [line for line in (ROOT / lock).read_text("utf-8").splitlines() if "==" in line]


def test_the_tests_tools_are_locked_beside_just_what_a_learner_has() -> None:
    both = pins("tests/requirements.txt")
    assert {*pins("requirements.txt")} < {*both}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    tools = {
        re.split("[<>=]", line)[0].lower() for line in project["optional-dependencies"]["test"]
    }
    assert tools <= {pin.partition("==")[0] for pin in both}
    for lock in "requirements.txt", "tests/requirements.txt":
        assert "\n-e .\n" in (ROOT / lock).read_text("utf-8")


def machines() -> list[tuple[str, str, dict[str, str]]]:
    """Each Python on each platform of the README, with its answers to markers."""
    return [
        (
            python,
            platform,
            {**answers, "python_version": python, "python_full_version": f"{python}.9"},
        )
        for python in PYTHONS
        for platform, (answers, _) in PLATFORMS.items()
    ]


@pytest.mark.parametrize(("python", "platform", "answers"), machines())
def test_the_lock_is_whole_and_fits_every_python_and_platform(
    python: str, platform: str, answers: dict[str, str]
) -> None:
    """As far as it can be known without network, from what the packages here say themselves."""
    there = {canonicalize_name(pin.name): pin for pin in locked(ROOT, answers)}
    assert len(there) == len(locked(ROOT, answers)), "a package is pinned twice"
    first = locked(ROOT, answers | {"python_full_version": f"{python}.0"})
    assert [*there.values()] == first, "one bundle would not serve each release of this Python"
    for name in there:
        try:
            known = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # another platform's
        if f"=={known.version}" != str(there[name].specifier):
            continue  # another Python's, or these are not the lock's
        required = str(known.metadata.json.get("requires_python", ""))
        assert f"{python}.9" in SpecifierSet(required), name
        for needed in map(Requirement, known.requires or ()):
            if needed.marker is None or needed.marker.evaluate({**answers, "extra": ""}):
                pin = there.get(canonicalize_name(needed.name))
                assert pin is not None, f"{name} needs {needed}"
                assert str(pin.specifier).removeprefix("==") in needed.specifier, (
                    f"{name}: {needed}"
                )


def test_another_python_is_refused_with_the_same_words_everywhere() -> None:
    first, last = PYTHONS[0], PYTHONS[-1]
    ends = f"Python {first} to {last}"
    assert f"You need {ends} " in README
    assert f"labkit needs {ends}, " in (ROOT / "labkit/__init__.py").read_text("utf-8")
    for lock in "requirements.txt", "tests/requirements.txt":
        text = (ROOT / lock).read_text("utf-8")
        [refusal] = [Requirement(line) for line in text.splitlines() if "file:" in line]
        assert f"file:///The-workbook-needs-Python-{first}-to-{last}.zip" == refusal.url
        assert refusal.url.removeprefix("file:///") in README
        assert refusal.marker is not None
        refused = [n for n in range(30) if refusal.marker.evaluate({"python_version": f"3.{n}"})]
        assert [n for n in range(30) if f"3.{n}" not in PYTHONS] == refused


def test_labkit_says_which_pythons_where_another_one_runs_it() -> None:
    """Up to its refusal, it must be readable by a Python of 2015: no f-string, no annotation."""
    text = (ROOT / "labkit/__init__.py").read_text("utf-8")
    door = text[: text.index("from labkit")]
    ast.parse(door, feature_version=(3, 5))
    for version in (3, 10, 9), (3, 16, 0):
        code = f"import sys; sys.version_info = {version}; exec({door!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        told = f"labkit needs Python {PYTHONS[0]} to {PYTHONS[-1]}, and this is 3.{version[1]}.\n"
        assert (1, told) == (done.returncode, done.stderr)
