import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser

from labkit.exercises import find_lessons
from labkit.server import COMPOSE_PLACE, Dsn, database, embedded
from tests.browser import opened
from tests.home import own_home

# As process 1 of a container, it would have to clear up orphans, and no signal would stop it.
if sys.platform != "win32" and os.getpid() == 1 and (child := os.fork()):
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status))

find_lessons()  # tests import what lies beside the notebooks, too

# A shell that runs the tests in the background hands SIGINT down ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent
QUICK = {
    "test_rooms.py",
    "test_dotfiles.py",
    "test_claims.py",
    "test_charts.py",
    "test_copy.py",
    "test_progress.py",
    "test_exercises.py",
    "test_sheets.py",
    "test_database.py",
}
# Of the whole suite, these run in a second process, beside the others: they mostly wait.
BESIDE = {
    "notebooks/test_fleet.py",
    "notebooks/test_web_process.py",
    "server/test_places.py",
    "workbook/test_bundle.py",
    "workbook/test_main.py",
    "workbook/test_reset.py",
}
SAID_BESIDE = pytest.StashKey[str]()
# What is named nowhere comes first. Then these: they measure, but ask the clock for little.
MEASURING = {
    "test_knobs.py",
    "test_mystery.py",
    "test_orders_service.py",
    "test_pitfalls.py",
    "test_room.py",
    "test_take_home.py",
    "test_tools.py",
}
# When the notebooks have ended: this, while the answers to the exercises are checked. The first
# answer comes before it, as its test starts the checks of all.
WITH_THE_ANSWERS = {"test_experiment.py", "test_web_service.py"}
ANSWERS = "test_answers.py"
# Last, what needs a quiet machine: files, and tests of others.
ALONE = {
    "test_instruments.py",
    "test_kinds.py",
    "test_load.py",
    "test_probe.py",
    "test_a_case_is_solved_by_what_the_probe_and_the_gauges_say",
    "test_a_culprit_is_convicted_by_the_line_that_the_probe_named",
    "test_a_function_that_goes_with_a_culprit_is_as_good_as_the_culprit",
    "test_alerts_fire_on_the_sick_service_and_not_on_the_sound_one",
    "test_an_innocent_is_acquitted_by_its_own_figures",
    "test_repaired_no_culprit_holds_up_anybody",
    "test_the_score_counts_looks_and_what_was_not_found_is_not_repaired",
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in QUICK:
            item.add_marker("quick")
    first_answer = next((item for item in items if item.path.name == ANSWERS), None)

    def turn(item: pytest.Item) -> int:
        name = item.path.name
        turns = [
            bool(ALONE & {name, item.name.partition("[")[0]}),
            name == ANSWERS and item is not first_answer,
            name in WITH_THE_ANSWERS,
            item is first_answer,
            _asks_for_the_notebooks(item),
            name in MEASURING,
            name == "test_beside.py",
        ]
        return -turns.index(True) if any(turns) else -len(turns)  # the last comes first

    items.sort(key=turn)
    if _whole(config):
        beside = {HERE / name for name in BESIDE}
        config.hook.pytest_deselected(items=[item for item in items if item.path in beside])
        items[:] = [item for item in items if item.path not in beside]


def _whole(config: pytest.Config) -> bool:
    """Whether nobody has asked for some of the tests only."""
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return not (named or config.option.keyword or config.option.markexpr)


def _asks_for_the_notebooks(item: pytest.Item) -> bool:
    return "notebooks_report" in getattr(item, "fixturenames", ())


class Beside(NamedTuple):
    """A process that is under way from the first test on, and what it writes."""

    process: subprocess.Popen[bytes]
    output: Path
    report: Path

    def wait(self) -> None:
        """Wait for its end; print its output, and fail if it has failed."""
        failed = self.process.wait()
        print(self.output.read_text("utf-8", "replace"))
        assert not failed, "the process that ran beside these tests has failed: see its output"


@contextmanager
def under_way(place: Path, *arguments: str, **env: str) -> Iterator[Beside]:
    """Run a module of Python's beside these tests; end it if they end before."""
    beside = [sys.executable, "-m", *arguments, str(place / "report")]
    with (place / "output").open("wb") as output:
        process = subprocess.Popen(
            beside,
            cwd=HERE.parent,
            env=os.environ | env,
            stdout=output,
            stderr=output,
        )
    try:
        yield Beside(process, place / "output", place / "report")
    finally:
        if process.poll() is None:  # these tests were broken off
            if sys.platform == "win32":
                process.terminate()
            else:
                process.send_signal(signal.SIGINT)
        process.wait()


@pytest.fixture(scope="session", autouse=True)
def notebooks_run(
    request: pytest.FixtureRequest, session_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Beside | None]:
    """All notebooks, executed in a process of their own; None if no test asks for them."""
    if not any(map(_asks_for_the_notebooks, request.session.items)):
        yield None
        return
    place, what = tmp_path_factory.mktemp("run"), "tests.notebooks.execute"
    with own_home() as home, under_way(place, what, LABKIT_HOME=str(home)) as run:
        yield run


@pytest.fixture(scope="session", autouse=True)
def tests_beside(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Beside | None]:
    """The tests that run beside the others; None if not the whole suite is run."""
    if not _whole(request.config):
        yield None
        return
    files = [str(HERE / name) for name in sorted(BESIDE)]
    # Options in PYTEST_ADDOPTS are for the process that a person has started.
    arguments = ["pytest", *files, "--durations=10", "--junitxml"]
    with under_way(tmp_path_factory.mktemp("beside"), *arguments, PYTEST_ADDOPTS="") as run:
        yield run
    request.config.stash[SAID_BESIDE] = run.output.read_text("utf-8", "replace")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if said := config.stash.get(SAID_BESIDE, ""):
        terminalreporter.section("what ran beside these tests")
        terminalreporter.write(said)


@pytest.fixture(scope="session", autouse=True)
def session_home() -> Iterator[Path]:
    """Keep every test away from the server and the database that belong to the user."""
    host, _, port = COMPOSE_PLACE.partition(":")
    with socket.socket() as caller:
        if caller.connect_ex((host, int(port))) == 0:
            pytest.exit(
                "Compose's server would be used by these tests: `docker compose down` first"
            )
    with own_home() as home, pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL", raising=False)
        patch.setenv("LABKIT_HOME", str(home))
        yield home
        embedded.stop(embedded.place())


@pytest.fixture(scope="session")
def dsn(session_home: Path) -> Dsn:
    """A real PostgreSQL with the dataset, made for this run of the tests."""
    return database()


@pytest.fixture(autouse=True)
def no_setting_is_inherited() -> Iterator[None]:
    """From another test, in which database() took labkit's own server, and left this behind."""
    with pytest.MonkeyPatch.context() as patch:  # undone after the test's own
        patch.setenv("PGSSLMODE", "")
        patch.delenv("PGSSLMODE")
        yield


@pytest.fixture(autouse=True)
def the_server_runs(request: pytest.FixtureRequest, session_home: Path) -> None:
    """Start the tests' server again, if a test worked in another home: this process let go of it.

    It comes back on its port, so the session's `dsn` stays right. A call costs under a millisecond.
    """
    if "dsn" in request.fixturenames:
        embedded.start()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as chromium:
        yield chromium
