import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from nbformat import v4

from labkit.errors import LabError
from labkit.server.home import is_alive
from labkit.workbook.start import start
from tests.server.test_embedded import until

pytestmark = pytest.mark.usefixtures("dsn")  # keeps the server running between the commands

DRIVER = """
import sys
from pathlib import Path
from labkit import exercises
from labkit.exercises import exercise
exercises.notebooks = exercise.notebooks = lambda: Path({notebooks!r})
from labkit.__main__ import main
{setup}
sys.exit(main())
"""
SHOW = """\
import base64, os, sys
from labkit.display import show
def figures(name, p50, p99, stalls):
    return {"name": name, "requests": 800, "errors": 1, "p50_ms": p50, "p99_ms": p99,
            "max_ms": p99 and 1.1 * p99, "stalls": stalls, "lag_max_ms": 9.5}
before, after = figures("legacy [sic]", 0.81, 118.0, 4), figures("repaired", 0.75, 2.1, 0)
def claim(held, figure="56 times"):
    claims = [{"claim": "p99 is 20 times lower", "held": held, "figure": figure}]
    show("a claim", data={"claims": claims})
"""
OLD: dict[str, Any] = {  # the output of an earlier run, as committed
    "data": {"text/plain": "✘ from an earlier run"},
    "metadata": {"labkit": {"claims": [{"claim": "earlier", "held": False, "figure": "1"}]}},
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@dataclass
class Checkout:
    """A directory with `notebooks/`, and labkit's command line working on it."""

    root: Path

    def add(self, name: str, *cells: str) -> None:
        """Make a notebook; a cell that begins with # is prose."""
        notebook: Any = v4  # which has no types
        made = [
            notebook.new_markdown_cell(c)
            if c.startswith("#")
            else notebook.new_code_cell(c, outputs=[notebook.new_output("display_data", **OLD)])
            for c in cells
        ]
        (self.root / "notebooks").mkdir(exist_ok=True)
        path = self.root / "notebooks" / f"{name}.ipynb"
        path.write_text(notebook.writes(notebook.new_notebook(cells=made)), "utf-8")

    def command(self, *arguments: str, setup: str = "") -> list[str]:
        code = DRIVER.format(notebooks=str(self.root / "notebooks"), setup=setup)
        return [sys.executable, "-c", code, *arguments]

    def labkit(
        self, *arguments: str, setup: str = "", **env: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments, setup=setup),
            env=os.environ | {"PYTHONIOENCODING": "utf-8"} | env,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )


@dataclass
class Outcome:
    """What `run` left behind, having executed one notebook of every sort."""

    checkout: Checkout
    process: subprocess.CompletedProcess[str]
    unchanged: bool

    @property
    def report(self) -> dict[str, dict[str, Any]]:
        text = (self.checkout.root / "report.json").read_text("utf-8")
        return {n["notebook"]: n for n in json.loads(text)["notebooks"]}

    def page(self, name: str) -> str:
        return (self.checkout.root / "runs" / f"{name}.html").read_text("utf-8")

    def section(self, name: str) -> str:
        """The scoreboard's part on one notebook, as one line."""
        return " ".join(self.process.stdout.partition(f"\n{name}: ")[2].split("\n0")[0].split())


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture(scope="module")
def outcome(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    checkout = Checkout(tmp_path_factory.mktemp("checkout"))
    (checkout.root / "notebooks").mkdir()
    (checkout.root / "notebooks" / "legacy.py").write_text("SLOW = True")
    outside = checkout.root.parent / "outside.txt"
    outside.write_text("nobody's business")
    (checkout.root / "notebooks" / "BESIDE.md").write_text(
        f"# Beside\n\n[outside](../../outside.txt), [by its path]({outside.as_posix()})"
    )
    code = checkout.root / "notebooks" / "code"
    (code / ".ipynb_checkpoints").mkdir(parents=True)
    (code / "shown.py").write_text("SHOWN = True")
    (code / ".hidden.py").write_text("HIDDEN = True")
    checkout.add(
        "00_held",
        "# Start *here*\n\n[next](01_broken.ipynb), [a file](legacy.py), [a folder](code)",
        SHOW,
        "show('a run', data={'run': before})\nshow('a run', data={'run': after})",
        "show('a pair', data={'pair': [before, after]})\nclaim(True, sys.executable)",
        f"show('A \"chart\"', png=base64.b64decode({PIXEL!r}))\n"
        "print(os.getcwd() + os.sep, (lambda: 0).__code__.co_filename)",
    )
    checkout.add("01_broken", "# Broken", SHOW, "claim(False)\nclaim(None)\nclaim(True)")
    counter = f"counter = {str(checkout.root / 'counter')!r}\nagain = os.path.exists(counter)"
    checkout.add("02_busy_at_first", SHOW, counter, "open(counter, 'w')\nclaim(again or None)")
    checkout.add("03_busy", SHOW, "claim(None)")
    cells = (
        "## Divide\n```\n# no heading\n```",
        "def f():\n    1 / 0\nf()",
        "# Later",
        "claim(True)",
    )
    checkout.add("04_raises", "# Raises", SHOW, "show('a', data={'run': before})", *cells)
    lab_error = "import labkit\nraise labkit.LabError('The rate is 0. Expected more.')"
    checkout.add("05_lab_error", "# Lab error", lab_error)
    nan = "show('a run', data={'run': figures('none completed', None, None, 0)})"
    pair = "show('a pair', data={'pair': [before, figures('none', None, None, 0)]})"
    checkout.add("06_none", SHOW, nan, pair)
    checkout.add("not_a_lesson", "1 / 0")
    # A kernel of the same name as ours, which cannot even start.
    shadow = checkout.root / "shadow" / "kernels" / "python3"
    shadow.mkdir(parents=True)
    spec = {"argv": ["no-such-program", "{connection_file}"], "display_name": "", "language": ""}
    (shadow / "kernel.json").write_text(json.dumps(spec))

    def notebooks() -> dict[Path, bytes]:
        return {
            p: p.read_bytes() for p in (checkout.root / "notebooks").rglob("*.*") if p.is_file()
        }

    earlier = notebooks()
    report, shadowing = str(checkout.root / "report.json"), str(checkout.root / "shadow")
    process = checkout.labkit("run", "--json", report, JUPYTER_PATH=shadowing)
    return Outcome(checkout, process, earlier == notebooks())


def test_each_notebook_is_reported_in_a_line_and_nothing_else_is_on_stderr(
    outcome: Outcome,
) -> None:
    lines = [re.sub(r"\d+ s,", "N s,", line) for line in outcome.process.stderr.splitlines()]
    assert lines == [
        "00_held … N s, ✔ held",
        "01_broken … N s, ✘ broken",
        "02_busy_at_first … N s, ✔ held (inconclusive at first: p99 is 20 times lower)",
        "03_busy … N s, ? inconclusive (inconclusive at first: p99 is 20 times lower)",
        "04_raises … N s, ✘ raised",
        "05_lab_error … N s, ✘ raised",
        "06_none … N s, ✔ ran",
    ]
    assert outcome.process.returncode == 1


def test_the_scoreboard_shows_pairs_and_claims_within_80_columns(outcome: Outcome) -> None:
    held, rows = outcome.section("00_held"), outcome.process.stdout.splitlines()
    assert "legacy [sic] → repaired 0.81 → 0.75 118 → 2.1 130 → 2.3 4 → 0" in held
    assert "✔ held p99 is 20 times lower" in held
    broken = outcome.section("01_broken")
    assert re.findall("held p99|broken p99|inconclusive p99", broken) == [
        "broken p99",
        "inconclusive p99",
        "held p99",
    ]
    assert "118 → none" in outcome.section("06_none")
    assert max(map(len, rows[1:-1])) <= 80  # but for the database's line, and the path


def test_the_scoreboard_says_what_to_do_about_a_busy_machine(outcome: Outcome) -> None:
    advice = "inconclusive: run it again when this machine is quiet"
    assert advice in outcome.section("03_busy")
    assert outcome.process.stdout.count(advice) == 1


def test_an_inconclusive_notebook_is_executed_once_more_and_a_broken_one_is_not(
    outcome: Outcome,
) -> None:
    report = outcome.report
    assert [1, 1, 2, 2, 1, 1, 1] == [notebook["attempts"] for notebook in report.values()]
    assert [True] == [claim["held"] for claim in report["02_busy_at_first"]["claims"]]


def test_an_exception_is_told_with_its_step_and_last_lines_and_the_next_notebook_runs(
    outcome: Outcome,
) -> None:
    error = outcome.report["04_raises"]["error"]
    assert error.startswith("In step “Divide”: ")
    assert error.endswith("ZeroDivisionError: division by zero")
    assert len(error.splitlines()) <= 6
    assert "ZeroDivisionError: division by zero" in outcome.section("04_raises")
    assert [118.0] == [run["p99_ms"] for run in outcome.report["04_raises"]["runs"]]
    assert outcome.report["06_none"]["error"] is None


def test_outputs_of_an_earlier_run_do_not_count_where_a_notebook_raised(outcome: Outcome) -> None:
    assert outcome.report["04_raises"]["claims"] == []
    assert "earlier run" not in outcome.page("04_raises")


def test_a_lab_error_is_told_in_its_own_words_alone(outcome: Outcome) -> None:
    told = "In step “Lab error”: The rate is 0. Expected more."
    assert told == outcome.report["05_lab_error"]["error"]
    assert f"✘ raised {told}" == outcome.section("05_lab_error")


def test_the_json_has_figures_claims_and_no_nan(outcome: Outcome) -> None:
    held, nan = outcome.report["00_held"], outcome.report["06_none"]
    assert {"name": "repaired", "requests": 800, "errors": 1, "stalls": 0} | {
        "p50_ms": 0.75,
        "p99_ms": 2.1,
        "max_ms": pytest.approx(2.31),
        "lag_max_ms": 9.5,
    } == held["runs"][1]
    assert held["claims"][0].keys() == {"claim", "held", "figure"}
    assert [None, None, None] == [nan["runs"][0][key] for key in ("p50_ms", "p99_ms", "max_ms")]
    assert 0 < held["seconds"] < 60


def test_the_kernel_is_this_python_even_if_another_has_its_name(outcome: Outcome) -> None:
    assert sys.executable == outcome.report["00_held"]["claims"][0]["figure"]


def test_the_notebooks_are_left_as_they_were(outcome: Outcome) -> None:
    assert outcome.unchanged


def test_every_notebook_has_a_page(outcome: Outcome) -> None:
    pages = {path.stem for path in (outcome.checkout.root / "runs").iterdir()}
    assert {*outcome.report, "index"} <= pages


def test_a_page_has_a_title_a_language_and_text_for_its_pictures(outcome: Outcome) -> None:
    page = outcome.page("00_held")
    assert re.search('<html [^>]*lang="en"', page)
    assert "<title>Start here - The asyncpg stall workbook</title>" in page
    [picture] = re.findall("<img[^>]*>", page)
    url = f"data:image/png;base64,{PIXEL}"
    assert all(
        f'{it}"' in picture for it in (f'src="{url}', 'alt="A &quot;chart&quot;', 'width="0')
    )


def test_a_page_links_to_pages_and_to_files_beside_the_notebooks(outcome: Outcome) -> None:
    links = re.findall(r'href="([^"#]+)"', outcome.page("00_held"))
    assert {"index.html", "01_broken.html", "legacy.py.html"} <= {*links}
    assert "SLOW" in outcome.page("legacy.py")
    assert "SHOWN" in outcome.page("code")
    assert "HIDDEN" not in outcome.page("code")


def test_nothing_outside_of_the_checkout_is_published(outcome: Outcome) -> None:
    made = [path for path in (outcome.checkout.root / "runs").rglob("*") if path.is_file()]
    assert [] == [path for path in made if b"nobody's business" in path.read_bytes()]
    assert ["outside.txt"] == [p.name for p in outcome.checkout.root.parent.glob("outside*")]


def test_the_pages_name_no_path_and_load_nothing_from_the_network(outcome: Outcome) -> None:
    for name in ("index", *outcome.report):
        page = outcome.page(name)
        assert str(outcome.checkout.root) not in page
        assert sys.prefix not in page
        assert tempfile.gettempdir() not in page
        assert [] == re.findall(r"<(?:script[^>]*src|link[^>]*href)=.https?:", page)


def test_the_first_page_lists_every_notebook_with_its_verdict(outcome: Outcome) -> None:
    page = outcome.page("index")
    rows = [
        [re.sub("<[^>]+>|^[^<]+>", "", cell).strip() for cell in row.split("</td>")]
        for row in page.split("<tr class=")[2:]
    ]
    repair = "legacy [sic] → repaired: 118 → 2.1, 56× lower"
    assert ["Start here", "✔ held (1 of 1 claims)", repair] == rows[0][:3]
    assert ["Broken", "✘ broken (1 of 3 claims)"] == rows[1][:2]
    assert "118 → none, none completed" in rows[6][2]
    assert 7 == len(rows)


NO_THEME = """
import os
with open("furo.py", "w") as module:
    module.write("raise ImportError('of another furo')")
os.environ["PYTHONPATH"] = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
"""


def test_verdicts_are_told_where_there_can_be_no_pages(checkout: Checkout) -> None:
    checkout.add("00_held", "# Held", SHOW, "claim(True)")
    setup = f"import os\nos.chdir({str(checkout.root)!r})\n{NO_THEME}"
    process = checkout.labkit("run", setup=setup)
    assert process.returncode == 0
    assert "There are no new pages: " in process.stdout
    assert "of another furo" in process.stdout
    assert process.stdout.endswith("In 1 of 1 notebooks every claim held.\n")
    assert "Traceback" not in process.stderr


def test_where_pages_cannot_be_written_nothing_is_executed(checkout: Checkout) -> None:
    checkout.add("00_held", "# Held", SHOW, "claim(True)")
    (checkout.root / "runs").write_text("a file")
    process = checkout.labkit("run")
    assert (2, "") == (process.returncode, process.stdout)
    assert f"{checkout.root / 'runs'} cannot be used: " in process.stderr
    assert 1 == len(process.stderr.splitlines())


def test_pages_are_made_of_what_is_committed_without_a_database(checkout: Checkout) -> None:
    checkout.add("00_held", "# Held", "claim(True)")
    process = checkout.labkit(
        "pages", str(checkout.root / "site"), DATABASE_URL="postgresql://nobody@127.0.0.1:1/none"
    )
    assert process.stdout == f"As pages: {checkout.root / 'site' / 'index.html'}\n"
    assert "" == process.stderr
    assert "from an earlier run" in (checkout.root / "site" / "00_held.html").read_text("utf-8")


def test_all_held_is_exit_status_0_also_where_the_output_has_no_tick(outcome: Outcome) -> None:
    process = outcome.checkout.labkit("run", "--only", "00", PYTHONIOENCODING="ascii")
    assert process.returncode == 0
    assert "? held" in process.stdout
    assert process.stdout.endswith("In 1 of 1 notebooks every claim held.\n")
    # What an earlier run wrote of the other notebooks is still there.
    assert (outcome.checkout.root / "runs" / "01_broken.html").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes of that kind there")
def test_who_reads_no_further_is_told_nothing(checkout: Checkout) -> None:
    pipes: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = checkout.command("status")
    with subprocess.Popen(command, encoding="utf-8", env=env, **pipes) as status:
        assert status.stdout is not None
        assert status.stderr is not None
        status.stdout.close()
        assert "" == status.stderr.read()
    assert 141 == status.returncode


def test_mistakes_are_told_without_a_traceback_before_anything_runs(checkout: Checkout) -> None:
    checkout.add("00_first", "1 / 0")
    checkout.add("01_second", "1 / 0")
    damaged = {"02": "{", "03": "[]", "04": '{"cells": 1}', "05": '{"nbformat": 4}'}
    for number, text in damaged.items():
        (checkout.root / "notebooks" / f"{number}_third.ipynb").write_text(text)
    elsewhere = "postgresql://lab:secret@127.0.0.1:1/lab"
    setup = f"""
import os
print(main(["run", "--only", "17", "00"]))
print(main(["run", "--only", ""]))
print(main(["run", "--only", "00", "--json", "no/such/directory.json"]))
print(main(["status", "--json", "."]))
print(main(["start"]))
print(main(["run", "--only", "03"]), main(["run", "--only", "04"]), main(["run", "--only", "05"]))
os.environ["DATABASE_URL"] = {elsewhere!r}
print(main(["run", "--only", "00"]))
del os.environ["DATABASE_URL"]
"""
    process = checkout.labkit("run", "--only", "02", setup=setup)
    expected = [
        "There is no notebook “17”. Expected one of: 00_first, 01_second, 02_third,",
        "There is no notebook “”. Expected one of: 00_first,",
        "no/such/directory.json cannot be used: No such file or directory. Expected a file or",
        ". cannot be used: ",
        "There is no 00_start_here.ipynb in ",
        *[f"0{n}_third.ipynb is no notebook. Expected JSON with cells. To do" for n in (3, 4, 5)],
        "The server on 127.0.0.1:1 cannot be used: ",
        "02_third.ipynb is no notebook. Expected JSON with cells. To do: restore that file.",
    ]
    told = process.stderr.splitlines()
    assert expected == [line[: len(start)] for line, start in zip(told, expected, strict=True)]
    assert process.stdout.split() == ["2"] * 9
    assert process.returncode == 2
    assert "secret" not in process.stderr + process.stdout


def test_a_word_too_many_is_told_with_the_usage_of_its_command(checkout: Checkout) -> None:
    process = checkout.labkit("run", "01")
    assert process.stderr.startswith("usage: labkit run [-h] [--only NN")
    assert process.stderr.endswith("error: unrecognized arguments: 01\n")
    assert 2 == process.returncode


@pytest.mark.skipif(sys.platform == "win32", reason="files cannot be limited there")
def test_where_temporary_files_have_no_room_nothing_is_executed(checkout: Checkout) -> None:
    checkout.add("00_held", "# Held", SHOW, "claim(True)")
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (70_000_000, -1))"
    process = checkout.labkit("run", setup=limit)
    assert (2, "") == (process.returncode, process.stdout)
    assert process.stderr.startswith("The output, or the place of temporary files (TMPDIR sets it)")
    assert 1 == len(process.stderr.splitlines())


def test_a_cell_that_hangs_and_a_kernel_that_dies_are_told(checkout: Checkout) -> None:
    checkout.add("00_hangs", "# Wait", "import time\ntime.sleep(600)")
    checkout.add("01_dies", "# Die", "import os\nos._exit(3)")
    process = checkout.labkit("run", setup="from labkit.workbook import run\nrun.CELL_SECONDS = 1")
    assert process.returncode == 1
    assert "In step “Wait”: a cell took more than 1 s\n" in process.stdout
    assert "In step “Die”: Kernel died\n" in process.stdout


@dataclass
class Running:
    """`labkit run`, and a kernel of it that has been in a cell for a moment."""

    runner: subprocess.Popen[str]
    kernel: psutil.Process
    connection_file: Path


@pytest.fixture
def running(checkout: Checkout) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        say = f"s = socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        cell = f"import os, socket, time\n{say}\ns.sendall(b'%d\\n' % os.getpid())\ntime.sleep(600)"
        checkout.add("00_waits", "# Wait", cell)
        pipes: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        command = checkout.command("run")
        with subprocess.Popen(command, encoding="utf-8", **pipes) as runner:
            try:
                connection, _ = server.accept()
                with connection, connection.makefile() as said:
                    kernel = psutil.Process(int(said.readline()))
                    yield Running(runner, kernel, Path(kernel.cmdline()[4]))
            finally:
                runner.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_shuts_the_kernel_down_and_says_so_in_a_line(running: Running, how: str) -> None:
    if signal.getsignal(signal.Signals[how]) == signal.SIG_IGN:
        pytest.skip(f"{how} is ignored here, as under nohup, and so it is by what is started")
    running.runner.send_signal(signal.Signals[how])
    _, said = running.runner.communicate(timeout=20)
    assert (130, "Stopped.\n") == (running.runner.returncode, said)
    assert not running.kernel.is_running()
    assert not running.connection_file.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_what_was_executed_before_ctrl_c_is_reported(checkout: Checkout, tmp_path: Path) -> None:
    begun, report = tmp_path / "begun", tmp_path / "report.json"
    checkout.add("00_done", "# Done", "print(7)")
    wait = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)"
    checkout.add("01_waits", "# Wait", wait)
    pipes: dict[str, Any] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = checkout.command("run", "--json", str(report))
    with subprocess.Popen(command, encoding="utf-8", **pipes) as runner:
        try:
            until(begun.exists, 120)
            runner.send_signal(signal.SIGINT)
            said, errors = runner.communicate(timeout=120)
        finally:
            runner.kill()
    assert 130 == runner.returncode, errors
    assert "Stopping, after a report" in errors
    assert errors.endswith("Stopped.\n")
    assert "00_done" in said
    assert "\nStopped after 1 of 2.\n" in said
    assert ["00_done"] == [one["notebook"] for one in json.loads(report.read_text())["notebooks"]]
    assert "As pages: " in said
    assert (checkout.root / "runs" / "00_done.html").exists()


def test_the_kernel_of_a_killed_runner_goes_by_itself_and_leaves_no_key(running: Running) -> None:
    running.runner.kill()
    _, alive = psutil.wait_procs([running.kernel], timeout=15)
    assert [] == alive
    assert running.connection_file.suffix == ".json"
    assert not running.connection_file.exists()  # it holds the kernel's key


@pytest.mark.parametrize("address", ["203.0.113.7", "300.1.1.1", "::wrong"])
def test_start_on_an_address_that_is_not_this_machines_is_told(address: str) -> None:
    with pytest.raises(LabError, match=rf"cannot listen on {address}: .* Expected an address of"):
        start(no_browser=True, ip=address)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process there")
def test_start_serves_who_has_the_token_asks_nothing_and_ends_on_ctrl_c(checkout: Checkout) -> None:
    checkout.add("00_start_here", "# Start here")
    pipe: dict[str, Any] = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    pipe["stdin"] = subprocess.DEVNULL  # no terminal
    kept = checkout.root / "runtime"
    command = checkout.command("start", "--no-browser", "--ip", "0.0.0.0")
    env = os.environ | {"JUPYTER_RUNTIME_DIR": str(kept)}
    with subprocess.Popen(command, encoding="utf-8", env=env, **pipe) as process:
        try:
            assert process.stderr is not None
            wanted = r"(http://127\S+?)/lab/tree/00_start_here\.ipynb\?token=(\w+)"
            server, token = next(
                found.groups() for line in process.stderr if (found := re.search(wanted, line))
            )

            def get(path: str, token: str = token) -> Any:
                request = urllib.request.Request(server + path)
                request.add_header("Authorization", f"token {token}")
                deadline = time.monotonic() + 20
                while True:
                    try:
                        with urllib.request.urlopen(request, timeout=20) as answer:
                            return json.load(answer)
                    except urllib.error.HTTPError as refused:
                        with refused:
                            return refused.code
                    except urllib.error.URLError:  # it prints its address before it listens
                        assert time.monotonic() < deadline

            assert ["00_start_here.ipynb"] == [f["name"] for f in get("/api/contents")["content"]]
            assert 403 == get("/api/contents", token="guessed")
            kernels = get("/api/kernelspecs")["kernelspecs"]
            assert ["python3"] == [*kernels]
            assert sys.executable == kernels["python3"]["spec"]["argv"][0]
            news = get("/lab/api/settings/@jupyterlab/apputils-extension:notification")
            assert news["schema"]["properties"]["fetchNews"]["default"] == "false"
            viewers = get("/lab/api/settings/@jupyterlab/docmanager-extension:plugin")["schema"]
            shown = viewers["properties"]["defaultViewers"]["default"]
            assert {"markdown": "Markdown Preview"} == shown
            assert [*kept.glob("jpserver-*.json")]
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert [] == [*kept.glob("jpserver-*")]  # they hold the token


@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM cannot be caught there")
def test_start_whose_parent_was_killed_ends_when_told_to_though_its_browser_runs_on(
    checkout: Checkout,
) -> None:
    """The end of a pipe is gone, nobody waits for it, and the browser's command does not return."""
    checkout.add("00_start_here", "# Start here")
    browser, opened = checkout.root / "browser", checkout.root / "opened"
    browser.write_text(f"#!/bin/sh\necho $$ > '{opened}'\nexec sleep 600")
    browser.chmod(0o755)
    parent = f"""
import subprocess, sys
pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
with subprocess.Popen({checkout.command("start")!r}, text=True, **pipes) as started:
    print(started.pid, flush=True)
    for line in started.stdout:
        print(line, end="", flush=True)
"""
    command, env = [sys.executable, "-c", parent], os.environ | {"BROWSER": f"{browser} %s"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        server = psutil.Process(int(process.stdout.readline()))
        try:
            assert "Your own copy of the notebooks: " in process.stdout.readline()
            until(lambda: opened.exists() and opened.read_text().endswith("\n"))
            process.kill()
            process.wait()
            server.terminate()
            until(lambda: not is_alive(server.pid))  # it stays as a zombie until init clears it
            assert psutil.Process(int(opened.read_text())).is_running()  # the user's own
        finally:
            for pid in [server.pid, *([int(opened.read_text())] if opened.exists() else [])]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()
