import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import LabError
from labkit.exercises import notebooks as notebooks_of_the_checkout
from labkit.workbook.copy import update


@pytest.fixture
def notebooks(tmp_path: Path) -> Path:
    """A workbook, as it is published."""
    path = tmp_path / "notebooks"
    (path / "service").mkdir(parents=True)
    (path / "01_stalls.ipynb").write_text(notebook("answer = ..."))
    (path / "legacy.py").write_text("old = 1\n")
    (path / "service" / "audit.py").write_text("")
    (path / "FACILITATOR.md").write_text("the usual wrong answers")
    for name in "exercises", "__pycache__", ".ipynb_checkpoints":
        (path / name).mkdir()
        (path / name / "file.py").write_text("")
    return path


@pytest.fixture
def copy(notebooks: Path) -> Path:
    """A learner's copy of it."""
    path = notebooks.parent / "my-notebooks"
    assert [] == update(notebooks, path)
    return path


def notebook(source: str, **cell: Any) -> str:
    return json.dumps({"cells": [{"cell_type": "code", "source": [source], **cell}]})


def sources(path: Path) -> list[list[str]]:
    return [cell["source"] for cell in json.loads(path.read_text())["cells"]]


def test_a_notebook_comes_without_outputs_which_would_answer_what_is_to_be_predicted(
    notebooks: Path, copy: Path
) -> None:
    shown = [{"output_type": "stream", "name": "stdout", "text": ["p99 110 ms"]}]
    text = notebook("predicted = None", outputs=shown, execution_count=3)
    (notebooks / "02_pool.ipynb").write_text(text)
    update(notebooks, copy)
    [cell] = json.loads((copy / "02_pool.ipynb").read_text())["cells"]
    assert ([], None) == (cell["outputs"], cell["execution_count"])
    assert text == (notebooks / "02_pool.ipynb").read_text()  # those who only read have them


def test_the_first_copy_has_all_that_a_learner_needs(
    copy: Path,
) -> None:
    files = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert {"01_stalls.ipynb", "legacy.py", "service/audit.py", ".workbook.json"} == files


def test_what_the_learner_did_not_change_becomes_new_and_what_is_gone_goes(
    notebooks: Path, copy: Path
) -> None:
    (notebooks / "01_stalls.ipynb").write_text(notebook("answer = None"))
    (notebooks / "legacy.py").unlink()
    (notebooks / "02_pool.ipynb").write_text(notebook("pool"))
    assert [] == update(notebooks, copy)
    assert [["answer = None"]] == sources(copy / "01_stalls.ipynb")
    assert [["pool"]] == sources(copy / "02_pool.ipynb")
    assert not (copy / "legacy.py").exists()


def test_an_answer_is_never_overwritten_and_newer_ones_are_told_each_time(
    notebooks: Path, copy: Path
) -> None:
    (copy / "01_stalls.ipynb").write_text(notebook("answer = 42"))
    (copy / "legacy.py").write_text("old = 2\n")
    (copy / "mine.ipynb").write_text(notebook("mine"))
    assert [] == update(notebooks, copy)  # there is nothing newer
    (notebooks / "01_stalls.ipynb").write_text(notebook("answer = None"))
    (notebooks / "legacy.py").unlink()
    assert ["01_stalls.ipynb"] == update(notebooks, copy) == update(notebooks, copy)
    assert notebook("answer = 42") == (copy / "01_stalls.ipynb").read_text()
    assert "old = 2\n" == (copy / "legacy.py").read_text()
    assert notebook("mine") == (copy / "mine.ipynb").read_text()


def test_to_run_a_notebook_is_no_change_to_it_and_keeps_its_outputs(
    notebooks: Path, copy: Path
) -> None:
    ran = notebook("answer = ...", outputs=[{"text": "mine"}], execution_count=3)
    (copy / "01_stalls.ipynb").write_text(ran)
    (notebooks / "01_stalls.ipynb").write_text(notebook("answer = ...", outputs=[]))
    assert [] == update(notebooks, copy)
    assert ran == (copy / "01_stalls.ipynb").read_text()
    (notebooks / "01_stalls.ipynb").write_text(notebook("answer = None"))
    assert [] == update(notebooks, copy)
    assert [["answer = None"]] == sources(copy / "01_stalls.ipynb")


def test_what_the_learner_renamed_or_deleted_comes_back_new(notebooks: Path, copy: Path) -> None:
    (copy / "01_stalls.ipynb").rename(copy / "01_mine.ipynb")
    (copy / "legacy.py").unlink()
    (notebooks / "01_stalls.ipynb").write_text(notebook("answer = None"))
    assert [] == update(notebooks, copy)
    assert [["answer = None"]] == sources(copy / "01_stalls.ipynb")
    assert [["answer = ..."]] == sources(copy / "01_mine.ipynb")
    assert (copy / "legacy.py").exists()


@pytest.mark.parametrize("damaged", [None, "{", "[1]"])
def test_without_its_record_all_that_differs_is_taken_for_the_learners(
    notebooks: Path, copy: Path, damaged: str | None
) -> None:
    record = copy / ".workbook.json"
    record.unlink() if damaged is None else record.write_text(damaged)
    (notebooks / "legacy.py").write_text("old = 3\n")
    assert ["legacy.py"] == update(notebooks, copy)
    assert "old = 1\n" == (copy / "legacy.py").read_text()
    (notebooks / "service" / "audit.py").write_text("new = 1\n")
    assert ["legacy.py"] == update(notebooks, copy)  # of the others it knows again
    assert "new = 1\n" == (copy / "service" / "audit.py").read_text()


@pytest.mark.parametrize("damaged", ["<<<<<<< HEAD\n{}", "[]", "{}", '{"cells": [1]}'])
def test_a_damaged_notebook_is_named_and_what_came_before_it_stays_up_to_date(
    notebooks: Path, copy: Path, damaged: str
) -> None:
    (notebooks / "01_stalls.ipynb").write_text(notebook("answer = None"))
    (notebooks / "02_pool.ipynb").write_text(damaged)
    (notebooks / "legacy.py").write_text("old = 3\n")
    with pytest.raises(LabError, match=r"02_pool.ipynb is no notebook. Expected JSON with cells"):
        update(notebooks, copy)
    (notebooks / "01_stalls.ipynb").write_text(notebook("answer = 0"))
    (notebooks / "02_pool.ipynb").write_text(notebook("pool"))
    assert [] == update(notebooks, copy)
    assert [["answer = 0"]] == sources(copy / "01_stalls.ipynb")
    assert "old = 3\n" == (copy / "legacy.py").read_text()


def test_two_updates_at_once_do_not_disturb_each_other(notebooks: Path, copy: Path) -> None:
    for n in range(200):
        (notebooks / "service" / f"{n}.py").write_text("new = 1\n")
    with ThreadPoolExecutor(4) as pool:
        assert [[]] * 4 == list(pool.map(lambda _: update(notebooks, copy), range(4)))
    assert 204 == sum(path.is_file() for path in copy.rglob("*"))


def test_a_copy_that_cannot_be_a_directory_is_told(notebooks: Path) -> None:
    (notebooks.parent / "file").write_text("")
    with pytest.raises(OSError, match=r"exists: .*file"):  # `main` says that in words
        update(notebooks, notebooks.parent / "file")


def test_a_kernel_in_the_copy_finds_its_lessons_there_also_after_an_exercise(
    tmp_path: Path,
) -> None:
    copy = tmp_path / "copy"
    update(notebooks_of_the_checkout(), copy)
    code = """
import sys
sys.path.insert(0, "")  # as in a kernel
import labkit
labkit.Exercise("report")
from legacy import monthly_report, ranking
print(monthly_report.__file__, ranking.__file__, sep="\\n")
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=copy, capture_output=True, text=True, check=True
    )
    files = [copy / "legacy" / "monthly_report.py", copy / "legacy" / "ranking.py"]
    assert [str(file) for file in files] == done.stdout.splitlines()
