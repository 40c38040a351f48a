"""The learner's own copy of the notebooks: kept up to date, and never overwritten."""

import contextlib
import hashlib
import json
from pathlib import Path

_RECORD = ".workbook.json"  # what each file was like when it came from the workbook
# Checks are read in the checkout, and the usual wrong answers are not for learners.
_LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", "exercises", "FACILITATOR.md"}


def update(notebooks: Path, copy: Path) -> list[str]:
    """Bring a copy of the notebooks, and of the files beside them, up to date; make it at first.

    What the learner has changed stays as it is. To run a notebook changes only its outputs, and
    those do not count. What the learner has deleted comes back.

    Returns:
        The files that were kept although the workbook has newer ones.
    """
    sources = {
        path.relative_to(notebooks).as_posix(): path
        for path in sorted(notebooks.rglob("*"))
        if path.is_file() and not _LEFT_OUT & {*path.relative_to(notebooks).parts}
    }
    record: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):  # lost: all that differs is kept
        record = dict(json.loads((copy / _RECORD).read_text("utf-8")))
    kept = []
    for name in sorted({*sources, *record}):
        file, source = copy / name, sources.get(name)
        mine, newest, earlier = _content(file), _content(source), record.pop(name, None)
        if mine not in (None, newest, earlier):  # the learner's
            if newest not in (None, earlier):
                kept.append(name)
            if earlier is not None:
                record[name] = earlier
        elif source and newest:
            if mine != newest:
                _replace(file, source)
            record[name] = newest
        else:
            file.unlink(missing_ok=True)  # gone from the workbook, too
    (copy / _RECORD).write_text(json.dumps(record, indent=1), "utf-8")
    return kept


def _content(path: Path | None) -> str | None:
    """What a learner can change in a file, as a hash; None if there is no such file."""
    if path is None or not path.is_file():
        return None
    content = path.read_bytes()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        if path.suffix == ".ipynb":
            cells = json.loads(content)["cells"]
            content = json.dumps([(cell["cell_type"], cell["source"]) for cell in cells]).encode()
    return hashlib.sha256(content).hexdigest()


def _replace(file: Path, source: Path) -> None:
    """Copy whole or not at all: half a file would count as changed by the learner.

    A notebook comes without its outputs, since those have the answer to what is to be predicted.
    """
    content = source.read_bytes()
    if file.suffix == ".ipynb":
        notebook = json.loads(content)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
        content = f"{json.dumps(notebook, indent=1, ensure_ascii=False)}\n".encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.new")
    new.write_bytes(content)
    new.replace(file)
