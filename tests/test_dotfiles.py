"""What installs the workbook: its dependencies, a dev container, Binder, GitHub's runners."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Any

import yaml

from labkit.exercises import notebooks

ROOT = notebooks().parent
README = (ROOT / "README.md").read_text("utf-8")
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
    assert re.search(r"python:3\.1[1-4]-", container["image"])


def test_binder_installs_the_lock() -> None:
    # Where there is a .binder/, it looks for all of its files there.
    lock = (ROOT / ".binder/requirements.txt").read_text("utf-8").removeprefix("-r ").strip()
    assert ROOT / "requirements.txt" == (ROOT / ".binder" / lock).resolve()
    assert re.fullmatch(r"python-3\.1[1-4]\n", (ROOT / ".binder/runtime.txt").read_text("utf-8"))


def test_the_weekly_workflow_tests_as_the_readme_does_on_every_system_and_python() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github/workflows/weekly.yml").read_text("utf-8"))
    job = workflow["jobs"]["test"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert 2 == len(TEST)
    newest = [command.replace("-r requirements.txt ", "") for command in TEST]
    assert [*TEST, *newest] == commands
    required = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert ">=" + job["strategy"]["matrix"]["python"][0] == required["requires-python"]
    assert {"push", "schedule"} <= workflow[True].keys()  # YAML 1.1 reads `on` as True
