"""The learner's own copy of the notebooks: kept up to date, and never overwritten."""

import contextlib
import hashlib
import json
import tempfile
from pathlib import Path

from labkit.errors import LabError

_RECORD = ".workbook.json"  # what each file was like when it came from the workbook
# Checks are read in the checkout, and the usual wrong answers are not for learners.
_LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", "exercises", "FACILITATOR.md"}


def update(notebooks: Path, copy: Path) -> list[str]:
    """Bring a copy of the notebooks, and of the files beside them, up to date; make it at first.

    What the learner has changed stays as it is. To run a notebook changes only its outputs, and
    those do not count. What the learner has deleted comes back.

    Returns:
        The files that were kept although the workbook has newer ones.

    Raises:
        LabError: One of the workbook's notebooks is damaged.
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
    copy.mkdir(parents=True, exist_ok=True)
    try:
        for name in sorted({*sources, *record}):
            file, source = copy / name, sources.get(name)
            mine, newest, earlier = _content(file), _content(source), record.get(name)
            if mine not in (None, newest, earlier):  # the learner's
                if newest not in (None, earlier):
                    kept.append(name)
            elif source and newest:
                if mine != newest:
                    _write(file, _without_outputs(source))
                record[name] = newest
            else:
                file.unlink(missing_ok=True)  # gone from the workbook, too
                record.pop(name, None)
    finally:  # half a copy has its record, too: what is not in it counts as the learner's
        _write(copy / _RECORD, json.dumps(record, indent=1).encode())
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


def _without_outputs(source: Path) -> bytes:
    """What to copy: outputs have the answer to what is to be predicted in a notebook."""
    content = source.read_bytes()
    if source.suffix != ".ipynb":
        return content
    try:
        notebook = json.loads(content)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell.update(outputs=[], execution_count=None)
    except (ValueError, KeyError, TypeError):
        raise LabError(
            f"{source} is no notebook. Expected JSON with cells. To do: restore that file."
        ) from None
    return f"{json.dumps(notebook, indent=1, ensure_ascii=False)}\n".encode()


def _write(file: Path, content: bytes) -> None:
    """Write whole or not at all: half a file would count as changed by the learner."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".new-") as name:
        new = Path(name, file.name)
        new.write_bytes(content)
        new.replace(file)
