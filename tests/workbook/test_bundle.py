"""The offline bundle, and a laptop without network that has nothing else."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging import tags
from packaging.utils import parse_wheel_filename

from labkit.__main__ import main
from labkit.errors import LabError
from labkit.exercises import notebooks
from labkit.server import embedded
from labkit.workbook.bundle import INSTALL, PARTS, PLATFORMS, bundle, pins
from tests.home import own_home

ROOT = notebooks().parent
WINDOWS = sys.platform == "win32"
# A network of its own, in which there is nothing but this machine. For root, on Linux.
NO_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]


@pytest.fixture(scope="module")
def laptop() -> Iterator[Path]:
    """A directory that the user nobody can reach, too, who runs PostgreSQL for root."""
    with own_home("labkit-laptop-") as place:
        yield place
        embedded.stop(place / "home" / "postgresql")


@pytest.fixture(scope="module")
def bundled(laptop: Path) -> Path:
    command = [sys.executable, "-m", "labkit", "bundle", str(laptop / "workbook")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
    assert 0 == done.returncode, done.stderr
    assert done.stdout.endswith(INSTALL.read_text("utf-8"))
    return laptop / "workbook"


def test_it_holds_wheels_and_what_is_in_the_checkout_and_nothing_of_this_machine(
    bundled: Path,
) -> None:
    ours = {path for part in ("labkit", "notebooks") for path in (ROOT / part).rglob("*.*")}
    ours |= {ROOT / part for part in PARTS}
    made = {"wheels", "INSTALL.txt"}
    for path in bundled.rglob("*"):
        relative = path.relative_to(bundled)
        if path.is_file() and relative.parts[0] not in made and path.suffix != ".pyc":
            assert ROOT / relative in ours
            assert (ROOT / relative).read_bytes() == path.read_bytes()
    mine = {*tags.sys_tags()}
    for wheel in (bundled / "wheels").iterdir():
        assert parse_wheel_filename(wheel.name)[3] & mine, f"{wheel.name} is for another Python"


def test_without_network_its_two_commands_lead_to_the_first_charts(bundled: Path) -> None:
    """A new environment from the wheels alone, the embedded server, and notebook 00's first charts.

    That the notebook holds is tested elsewhere.
    """
    lesson = bundled / "notebooks" / "00_start_here.ipynb"
    notebook = json.loads(lesson.read_text("utf-8"))
    charts = [n for n, cell in enumerate(notebook["cells"]) if "image/png" in json.dumps(cell)]
    del notebook["cells"][charts[0] + 1 :]
    lesson.write_text(json.dumps(notebook), "utf-8")
    cut_off = NO_NETWORK if _works([*NO_NETWORK, "true"]) else []
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | {
        "PIP_CONFIG_FILE": os.devnull,  # no other place to find wheels
        "PIP_NO_COMPILE": "1",  # most of it is never imported
        "LABKIT_HOME": str(bundled.parent / "home"),
    }
    shell = ["powershell", "-Command"] if WINDOWS else ["sh", "-c"]
    python = f"& '{sys.executable}'" if WINDOWS else f"'{sys.executable}'"
    for line in INSTALL.read_text("utf-8").splitlines():
        if (".venv\\" if WINDOWS else ".venv/") in line:
            command = line.replace("py " if WINDOWS else "python3 ", f"{python} ", 1)
            command = command.replace("labkit start", "labkit run --only 00")
            done = subprocess.run(
                [*cut_off, *shell, command],
                cwd=bundled,
                env=environment,
                capture_output=True,
                encoding="utf-8",
            )
            assert "Traceback" not in done.stdout + done.stderr
    page = (bundled / "runs" / "00_start_here.html").read_text("utf-8")
    assert 1 == page.count('src="data:image/png;base64,')


def test_it_takes_the_other_machines_wheels_and_not_this_ones() -> None:
    def names(platform: str, python: str) -> set[str]:
        return {pin.partition("==")[0] for pin in pins(ROOT, platform, python)}

    windows, linux = names("windows", "3.13"), names("linux", "3.13")
    assert {"pywinpty", "colorama"} == windows - linux
    assert {"pexpect", "ptyprocess"} <= linux - windows
    assert {"appnope"} == names("macos", "3.13") - linux
    assert "overrides" in names("linux", "3.11") - linux


def test_what_the_lock_leaves_out_is_there_to_build_labkit_itself() -> None:
    for platform in PLATFORMS:
        assert [pin for pin in pins(ROOT, platform, "3.12") if pin.startswith("setuptools>=")]


def test_mistakes_are_told_before_anything_is_downloaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(LabError, match=r"no wheels for amiga .* one of the platforms linux, "):
        bundle(tmp_path / "new", "amiga")
    with pytest.raises(LabError, match=r"with Python 3\.16\. .* of the Pythons 3\.11, .*, 3\.15\."):
        bundle(tmp_path / "new", "linux", "3.16")
    (tmp_path / "thesis.txt").touch()
    (tmp_path / "wheels").mkdir()  # of somebody's own project, with notebooks that are theirs
    with pytest.raises(LabError, match="has something else in it"):
        bundle(tmp_path)
    assert 2 == main(["bundle", str(tmp_path / "thesis.txt" / "new")])
    assert "thesis.txt/new" in (said := capsys.readouterr().err.replace("\\", "/"))
    assert "cannot be used: " in said
    assert {"thesis.txt", "wheels"} == {path.name for path in tmp_path.iterdir()}


def test_without_an_index_it_says_so_and_does_not_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(LabError, match="No matching distribution found for setuptools") as told:
        bundle(tmp_path / "new")
    assert "check the network" in str(told.value)
    assert "127.0.0.1" not in str(told.value)


def _works(command: list[str]) -> bool:
    return shutil.which(command[0]) is not None and not subprocess.run(command).returncode
