"""The site: executed notebooks as pages that can be read from a disk, without any network.

Sphinx makes it, with MyST-NB; `conf.py` says how. It gets the notebooks, the Markdown beside them,
and a page for whatever else of the checkout these link to.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from html import escape
from pathlib import Path

from nbformat import NotebookNode

from labkit import exercises
from labkit.errors import LabError
from labkit.workbook.overview import overview
from labkit.workbook.report import as_committed, read

LINK = re.compile(r"\]\(([\w./-]+)")
TREE = "\n```{toctree}\n:hidden:\n\n"


def pages(directory: Path) -> None:
    """Write the site of the notebooks as they are committed: nothing is executed.

    Raises:
        LabError: A notebook cannot be read, or the site cannot be built.
        OSError: The directory cannot be written.
    """
    notebooks = read()
    first = overview(as_committed(notebooks))
    write({path.name: notebook for path, notebook in notebooks.items()}, first, directory)
    print(f"As pages: {directory / 'index.html'}")


def write(notebooks: Mapping[str, NotebookNode], first: str, directory: Path) -> str:
    """Write the site of some executed notebooks. Pages of others stay as they are.

    Args:
        notebooks: By the names of their files. Their pictures are changed into HTML.
        first: The first page, as Markdown.
        directory: Where the site goes.

    Returns:
        What Sphinx warned of.

    Raises:
        LabError: The site cannot be built.
        OSError: The directory cannot be written.
    """
    root = exercises.notebooks()
    texts = {path.name: path.read_text("utf-8") for path in root.glob("*.md")}
    for name, notebook in notebooks.items():
        for output in (output for cell in notebook.cells for output in cell.get("outputs", ())):
            _describe(output)
        texts[name] = json.dumps(notebook)
    with tempfile.TemporaryDirectory() as place:
        source, built = Path(place, "source"), Path(place, "built")

        def target(found: re.Match[str]) -> str:
            path = root / found[1]
            if found[1] in texts or not path.exists():
                return found[0]
            if path.suffix == ".ipynb":  # it was not run
                return f"](checkout:{found[1]}"
            page = source / f"{os.path.normpath(f'/{found[1]}')[1:]}.md"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(_listing(path), "utf-8")
            return found[0]

        source.mkdir()
        for name, text in texts.items():
            (source / name).write_text(LINK.sub(target, text), "utf-8")
        tree = TREE + "\n".join(sorted(texts, key=lambda name: (name != "QUIZ.md", name)))
        (source / "index.md").write_text(first + tree, "utf-8")
        sphinx = [sys.executable, "-m", "sphinx", "-q", "-jauto", "-c", str(Path(__file__).parent)]
        done = subprocess.run(
            [*sphinx, "-d", "doctrees", "source", "built"],
            cwd=place,
            env=os.environ | dict.fromkeys(("TMPDIR", "TEMP"), place),  # for its log, if it fails
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            told = re.findall(r"(?:Error|python\S*): (.+)", done.stderr) or ["it does not say why"]
            raise LabError(f"Sphinx failed: {told[-1]}. To do: `python -m labkit doctor`.")
        for page in built.rglob("*.html"):
            page.write_text(_without_paths(page.read_text("utf-8")), "utf-8")
        only_sphinx_needs = shutil.ignore_patterns("_sources", ".buildinfo", "objects.inv")
        shutil.copytree(built, directory, ignore=only_sphinx_needs, dirs_exist_ok=True)
    return done.stderr


def anchor(heading: str) -> str:
    """How a link names a heading: as in JupyterLab."""
    return heading.replace(" ", "-")


def _listing(path: Path) -> str:
    """A page that shows a file, or each that lies in a folder."""
    page = f"---\norphan: true\nnosearch: true\n---\n# {path.name}\n"
    for file in sorted(path.glob("*.*")) if path.is_dir() else [path]:
        page += f"\n## {file.name}\n" if path.is_dir() else ""
        page += f"\n``````{file.suffix[1:]}\n{file.read_text('utf-8', 'replace')}\n``````\n"
    return page


def _describe(output: NotebookNode) -> None:
    """Write a picture as HTML, with its text: MyST-NB would leave that out."""
    data, look = output.get("data", {}), output.get("metadata", {}).get("image/png", {})
    if "image/png" in data:
        url = f"data:image/png;base64,{data['image/png'].strip()}"
        text = escape(look.get("alt", data.get("text/plain", "")))
        data["text/html"] = f'<img src="{url}" alt="{text}" width="{look.get("width", "")}">'


def _without_paths(html: str) -> str:
    """Where the workbook lies on this machine is nobody's business; in a picture, it is chance."""
    roots = (exercises.notebooks().parent, sys.prefix, sys.base_prefix, tempfile.gettempdir())
    here = "|".join(re.escape(f"{root}{os.sep}") for root in roots)
    return re.sub(rf"(?<![\w+/])({here})", "", html)
