"""What became of each exercise: recorded, told and forgotten."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit import Exercise, LabError
from labkit.__main__ import main
from labkit.exercises import CATALOGUE, notebooks, progress
from labkit.server import embedded
from labkit.workbook.reset import reset

EVERY = [name for names in CATALOGUE.values() for name in names]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path))
    return tmp_path


is_wrong: Any = 7  # no function at all, so its check needs no database


def labkit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, with nobody at the keyboard."""
    command = [sys.executable, "-m", "labkit", *arguments]
    nobody = subprocess.DEVNULL
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(
        command, stdin=nobody, capture_output=True, encoding="utf-8", env=environment
    )


def test_status_tells_solved_from_tried_from_untouched() -> None:
    progress.record("report", "pass")
    progress.record("pool", "raised")
    done = labkit("status")
    assert (0, "") == (done.returncode, done.stderr)
    lines = done.stdout.splitlines()
    assert len(EVERY) + 2 == len(lines)
    states = {line.split()[1]: " ".join(line.split()[2:]) for line in lines[:-2]}
    assert "✔ solved" == states["report"]
    assert "tried" == states["pool"]
    assert "untouched" == states["gate"]
    assert lines[1].startswith("01_detect_loop_blocking ")
    assert f"Solved so far: 1 of {len(EVERY)} (report)." == lines[-2]
    assert f"This is kept in {progress.place()}, and sent nowhere." == lines[-1]


def test_status_as_json_says_the_same_and_nothing_of_the_machine(home: Path) -> None:
    progress.record("report", "pass")
    progress.record("pool", "raised")
    printed, written = (
        labkit("status", "--json"),
        labkit("status", "--json", str(home / "ada.json")),
    )
    assert (0, "", 0, "") == (
        printed.returncode,
        printed.stderr,
        written.returncode,
        written.stdout,
    )
    assert printed.stdout == (home / "ada.json").read_text("utf-8")
    rows = json.loads(printed.stdout)
    assert [name for name, names in CATALOGUE.items() for _ in names] == [
        r["notebook"] for r in rows
    ]
    states = {row["exercise"]: row["state"] for row in rows}
    assert EVERY == list(states)
    assert {"report": "solved", "pool": "tried"} == {
        name: state for name, state in states.items() if state != "untouched"
    }
    assert str(home) not in printed.stdout


def test_status_as_json_says_if_its_file_cannot_be_written(home: Path) -> None:
    done = labkit("status", "--json", str(home / "nowhere" / "ada.json"))
    assert 2 == done.returncode
    assert "ada.json cannot be used: No such file" in done.stderr


def test_the_guides_lines_add_up_a_room(home: Path) -> None:
    guide = (notebooks() / "FACILITATOR.md").read_text("utf-8")
    [lines] = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    [command] = re.findall(r"-m labkit (status --json room/ada.json)", guide)
    (home / "room").mkdir()
    for who, solved in {"ada": ["report", "pool"], "bob": ["report"]}.items():
        for name in solved:
            progress.record(name, "pass")
        file = home / command.split()[-1].replace("ada", who)
        assert 0 == labkit("status", "--json", str(file)).returncode
        reset([], yes=True)
    added = subprocess.run(
        [sys.executable, "-c", lines], cwd=home, capture_output=True, text=True, check=True
    )
    counts = {row.split()[-3]: row.split()[-2:] for row in added.stdout.splitlines()[2:]}
    assert {"report": ["2", "0"], "pool": ["1", "1"], "gate": ["0", "2"]}.items() <= counts.items()


def test_a_check_records_its_outcome_and_ends_with_what_is_solved() -> None:
    progress.record("pool", "pass")
    verdict = Exercise("report").check(is_wrong)
    assert f"Solved so far: 1 of {len(EVERY)} (pool)." == repr(verdict).splitlines()[-1]
    assert {"pool": True, "report": False} == progress.read()


def test_what_was_not_attempted_is_not_recorded() -> None:
    async def untouched(dsn: str, customer: int) -> None: ...

    Exercise("report").check(untouched)
    assert {} == progress.read()
    assert not progress.place().exists()


def test_what_was_solved_once_stays_solved() -> None:
    progress.record("report", "pass")
    progress.record("report", "not yet")
    assert {"report": True} == progress.read()


def test_what_was_solved_under_another_number_of_its_notebook_stays_solved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    progress.record("transaction", "pass")
    renumbered = {f"1{notebook}": names for notebook, names in CATALOGUE.items()}
    monkeypatch.setattr(progress, "CATALOGUE", renumbered)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        main(["status"])
    assert re.search(r"107_pitfalls +transaction +✔ solved", said.getvalue())


def test_two_kernels_at_once_lose_nothing_of_each_other() -> None:
    code = (
        "import sys; from labkit.exercises import progress\n"
        "for n in range(40): assert not progress.record(f'{sys.argv[1]}{n}', 'pass')"
    )
    kernels = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("a", "b", "c")]
    assert [0, 0, 0] == [kernel.wait(120) for kernel in kernels]
    assert {f"{name}{n}" for name in "abc" for n in range(40)} == set(progress.read())


def test_a_damaged_file_breaks_no_check_and_counts_as_tried() -> None:
    progress.record("report", "pass")
    (progress.place() / "report").write_bytes(b"\xff")
    assert {"report": False} == progress.read()
    assert "not yet" == Exercise("report").check(is_wrong).outcome
    progress.record("report", "pass")
    assert {"report": True} == progress.read()


def test_a_file_that_cannot_be_written_breaks_no_check(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "a file").touch()
    monkeypatch.setenv("LABKIT_HOME", str(home / "a file"))
    verdict = Exercise("report").check(is_wrong)
    assert "not yet" == verdict.outcome
    assert "(This was not recorded: " in verdict.progress
    assert "report cannot be written: " in verdict.progress


@pytest.mark.skipif(sys.platform == "win32", reason="there, every user has a home directory")
def test_without_a_place_commands_say_so_and_a_check_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LABKIT_HOME", "~nobody-of-this-name/lab")
    for command in "status", "reset --progress --yes":
        done = labkit(*command.split())
        assert (2, "") == (done.returncode, done.stdout)
        assert "There is no place for labkit's files in ~nobody-of-this-name/" in done.stderr
    verdict = Exercise("report").check(is_wrong)
    assert "not yet" == verdict.outcome
    assert "(This was not recorded. There is no place" in verdict.progress


def test_reset_forgets_one_and_says_what() -> None:
    progress.record("report", "pass")
    progress.record("pool", "pass")
    done = labkit("reset", "--yes", "--progress", "report")
    assert (0, "") == (done.returncode, done.stderr)
    assert "This forgets what became of report. Your answers in the notebooks stay." in done.stdout
    assert ["pool"] == list(progress.read())


def test_reset_forgets_all(capsys: pytest.CaptureFixture[str]) -> None:
    progress.record("report", "pass")
    progress.record("pool", "not yet")
    reset([], yes=True)
    assert "forgets what became of pool, report." in capsys.readouterr().out
    assert {} == progress.read()
    reset([], yes=True)
    assert "Nothing to forget" in capsys.readouterr().out
    assert f"Solved so far: 0 of {len(EVERY)}." == progress.solved()


def test_reset_asks_first_and_does_nothing_if_nobody_answers() -> None:
    progress.record("report", "pass")
    done = labkit("reset", "--progress")
    assert 2 == done.returncode
    assert "there is nobody to ask" in done.stderr
    assert ["report"] == list(progress.read())


def test_reset_refuses_a_name_that_is_no_exercise() -> None:
    with pytest.raises(LabError, match=r"no exercise nope\. Expected some of: stopwatch, report"):
        reset(["nope"], yes=True)


def test_a_plain_reset_leaves_progress_alone(home: Path) -> None:
    progress.record("report", "pass")
    embedded.place().mkdir()  # with no server in it
    done = labkit("reset", "--yes")
    assert (0, "") == (done.returncode, done.stderr)
    assert not embedded.place().exists()
    assert ["report"] == list(progress.read())
