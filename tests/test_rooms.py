"""The house: each room of labkit imports only from the rooms below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import labkit

ROOT = Path(labkit.__file__).parent
# What each room may import. Only downwards: whoever reads a room need not read those above it.
BELOW = {
    "errors": set[str](),
    "display": set[str](),
    "probe": {"errors"},
    "server": {"errors", "display"},
    "measure": {"errors", "display", "probe"},
    "show": {"errors", "display", "probe", "measure"},
    "exercises": {"errors", "display", "probe", "server", "measure", "show"},
    "workbook": {"errors", "display", "probe", "server", "measure", "show", "exercises"},
}


def imported(file: Path) -> set[str]:
    """The modules of labkit that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively: write `from labkit.…`"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name for name in names if name.startswith("labkit.")}
    return found


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_only_from_the_rooms_below_it(room: str) -> None:
    files = [*(ROOT / room).rglob("*.py")] or [ROOT / f"{room}.py"]
    upwards = {
        f"{file.relative_to(ROOT.parent).as_posix()} imports {name}"
        for file in files
        for name in imported(file)
        if name.split(".")[1] not in BELOW[room] | {room}
    }
    rule = f"labkit/{room} may import from {', '.join(sorted(BELOW[room])) or 'nothing'} only"
    assert not upwards, f"{rule}; imports run downwards. Found: {'; '.join(sorted(upwards))}"


def test_every_room_is_on_the_plan() -> None:
    rooms = {path.stem for path in ROOT.iterdir() if path.suffix in ("", ".py")}
    assert {*BELOW, "__init__", "__main__"} == rooms - {"__pycache__"}


def test_the_probe_needs_the_standard_library_only() -> None:
    code = "import sys; old = {*sys.modules}; import labkit.probe; print(*{*sys.modules} - old)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    built = ("_sysconfigdata", "_missing_stdlib_info")  # by whoever built this Python
    tops -= {name for name in tops if name.startswith(built)}
    assert {"labkit"} == tops - sys.stdlib_module_names
