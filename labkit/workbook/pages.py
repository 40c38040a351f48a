"""The site: executed notebooks as pages that can be read from a disk, without any network.

Sphinx makes it, with MyST-NB; `conf.py` says how. It gets the notebooks, the Markdown beside them,
and a page for whatever else of the checkout these link to. The first page says what became of each
notebook, as a picture and as a table.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path

from nbformat import NotebookNode

from labkit import exercises
from labkit.display import as_img
from labkit.errors import LabError
from labkit.show.repairs import Strip, draw_repairs, how_changed, names
from labkit.workbook import refuse_others_files
from labkit.workbook.report import Result, in_ms, in_sum, read, results_of

LINK = re.compile(r"\]\(([\w./-]+)")
MARKUP = re.compile(r"([\\`*_\[\]<>|])")  # of Markdown, in the name of a run
FIRST = """# Each repair, before and after

**{}** For each repair: how long the slowest of a hundred requests takes (p99), before and after.

``````{{raw}} html
{}
``````

{}
"""
TREE = "\n```{toctree}\n:hidden:\n\n"


def pages(directory: Path) -> None:
    """Write the site of the notebooks as they are committed: nothing is executed.

    Raises:
        LabError: A notebook cannot be read, the site cannot be built, or the directory has
            something else in it.
    """
    refuse_others_files(directory, "_static/pages.css")
    notebooks = read()
    directory.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=directory).close()  # find out now, rather than after minutes
    write(notebooks, overview(results_of(notebooks)), directory)
    print(f"As pages: {directory / 'index.html'}")


def overview(results: Sequence[Result], committed: Sequence[Result] = ()) -> str:
    """The first page as Markdown: a picture, and a table that says the same.

    Args:
        results: What became of each notebook.
        committed: What was committed of each, if that is something else.
    """
    head = ["notebook", "verdict", "p99 before → after (ms)"]
    head += ["as committed"] if committed else []
    rows, strips, said = [head, ["---"] * len(head)], [], ""
    for result, old in zip_longest(results, committed):
        held = sum(claim["held"] is True for claim in result.claims)
        verdict = f"{result.verdict} ({held} of {len(result.claims)} claims)"
        for pairs in zip_longest(result.pairs or [None], old.pairs if old else []):
            strips.append(Strip(result.title, verdict, *pairs))
        told = [
            [f"{names(pair)}: {in_ms(pair)}, {how_changed(pair)}" for pair in one.pairs]
            for one in filter(None, (result, old))
        ]
        cells = ["<br>".join(MARKUP.sub(r"\\\1", one) for one in repairs) for repairs in told]
        rows.append([f"[{result.title}]({result.notebook}.ipynb)", verdict, *cells])
        said += f"{result.title}: {verdict}. {'; '.join(told[0])} "
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return FIRST.format(in_sum(results), draw_repairs(strips, said), table)


def write(notebooks: Mapping[Path, NotebookNode], first: str, directory: Path) -> str:
    """Write the site of some executed notebooks, with a first page in Markdown; see `build`.

    Pages of other notebooks, from an earlier run, stay, and these link to them; the first page, the
    contents and the search know only the notebooks of this run.
    """
    root = exercises.notebooks()
    texts = {path.name: path.read_text("utf-8") for path in root.glob("*.md")}
    made = {*texts, *(path.name for path in notebooks)}
    with tempfile.TemporaryDirectory() as place:
        source = Path(place)

        def target(found: re.Match[str]) -> str:
            link, path = found[1], root / found[1]
            inside = path.resolve().is_relative_to(root.parent.resolve())
            if link in made or link.startswith("/") or not (inside and path.exists()):
                return found[0]
            if path.suffix == ".ipynb":  # it was not run now
                earlier = (directory / f"{path.stem}.html").exists()
                return f"](earlier:{path.stem}" if earlier else f"](checkout:{link}"
            page = source / f"{os.path.normpath(f'/{link}')[1:]}.md"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(_listing(path), "utf-8")
            return found[0]

        for name, text in texts.items():
            (source / name).write_text(LINK.sub(target, text), "utf-8")
        paths = _paths()
        for path, notebook in notebooks.items():
            shown = json.loads(paths.sub("", json.dumps(notebook, ensure_ascii=False)))
            for cell in shown["cells"]:
                if cell["cell_type"] == "markdown":
                    cell["source"] = LINK.sub(target, cell["source"])
                for output in cell.get("outputs", ()):
                    if "image/png" in (data := output.get("data", {})):  # else without its text
                        data["text/html"] = as_img(data, output["metadata"])
            (source / path.name).write_text(json.dumps(shown), "utf-8")
        tree = TREE + "\n".join(sorted(made, key=lambda name: (name != "QUIZ.md", name)))
        (source / "index.md").write_text(first + tree, "utf-8")
        return build(place, directory, "-jauto")


def build(source: str, directory: Path, *options: str) -> str:
    """Let Sphinx make pages of what lies in a folder.

    Returns:
        What it warned of.

    Raises:
        LabError: It has failed.
    """
    with tempfile.TemporaryDirectory() as place:
        built = f"{place}/built"
        command = [sys.executable, "-m", "sphinx", "-q", "-c", str(Path(__file__).parent)]
        done = subprocess.run(
            [*command, "-d", f"{place}/doctrees", *options, source, built],
            env=os.environ | dict.fromkeys(("TMPDIR", "TEMP"), place),  # for its log, if it fails
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode:
            told = re.findall(r"(?:Error|python\S*): (.+)", done.stderr) or ["it does not say why"]
            raise LabError(f"Sphinx failed: {told[-1]}. To do: `python -m labkit doctor`.")
        only_sphinx_needs = shutil.ignore_patterns("_sources", ".buildinfo", "objects.inv")
        try:
            shutil.copytree(built, directory, ignore=only_sphinx_needs, dirs_exist_ok=True)
        except shutil.Error as error:  # a list, with an entry for each file
            raise OSError(error.args[0][0][2]) from None
    return done.stderr


def anchor(heading: str) -> str:
    """How a link names a heading: as in JupyterLab."""
    return heading.replace(" ", "-")


def _listing(path: Path) -> str:
    """A page that shows a file, or each that lies in a folder."""
    page = f"---\norphan: true\nnosearch: true\n---\n# {path.name}\n"
    for file in filter(Path.is_file, sorted(path.glob("[!.]*.*")) if path.is_dir() else [path]):
        page += f"\n## {file.name}\n" if path.is_dir() else ""
        page += f"\n``````{file.suffix[1:]}\n{file.read_text('utf-8', 'replace')}\n``````\n"
    return page


def _paths() -> re.Pattern[str]:
    """A pattern of this machine's paths, which are private, in a notebook's JSON.

    It matches nothing in a picture.
    """
    roots = [str(exercises.notebooks().parent), sys.prefix, sys.base_prefix, tempfile.gettempdir()]
    plain = {f"{root}{os.sep}" for root in (*roots, *map(os.path.realpath, roots))}
    spelled = plain | {escape(root, quote=False) for root in plain} | {repr(p)[1:-1] for p in plain}
    longest_first = sorted(spelled, key=len, reverse=True)  # one may lie in another
    in_json = (re.escape(json.dumps(path, ensure_ascii=False)[1:-1]) for path in longest_first)
    # After a letter, only if that is part of a line's end, or ends a terminal's colour.
    return re.compile(r"(?:(?<![\w+/])|(?<=\\[nrt])|(?<=\dm))" + f"({'|'.join(in_json)})")
