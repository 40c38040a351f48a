import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser

from labkit.exercises import find_lessons
from labkit.server import COMPOSE_PLACE, Dsn, database, embedded
from tests.browser import opened
from tests.home import own_home
from tests.lane import Lane

# As process 1 of a container, it would have to clear up orphans, and no signal would stop it.
if sys.platform != "win32" and os.getpid() == 1 and (child := os.fork()):
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(os.waitstatus_to_exitcode(status))

find_lessons()  # tests import what lies beside the notebooks, too

# A shell that runs the tests in the background hands SIGINT down ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
# A whole run takes turns. Beside its first half run the notebooks, and until they have all ended
# these, which mostly wait.
BESIDE = {
    "test_bundle.py",
    "test_embedded.py",
    "test_fleet.py",
    "test_main.py",
    "test_places.py",
    "test_reset.py",
    "test_web_process.py",
}
# Meanwhile comes what is not named here: it reads files, and starts processes. Then what measures,
# but asks the clock for little.
MEASURING = {
    "test_knobs.py",
    "test_orders_service.py",
    "test_pitfalls.py",
    "test_room.py",
    "test_take_home.py",
    "test_tools.py",
}
# The second half, without the notebooks: these, beside the answers to the exercises, whose first
# test starts the checks of all.
WITH_THE_ANSWERS = {"test_experiment.py", "test_mystery.py", "test_web_service.py"}
ANSWERS = "test_answers.py"
# At last, when all else has ended, what can say more on a quiet machine.
ALONE = {"test_instruments.py", "test_kinds.py", "test_load.py", "test_probe.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in QUICK:
            item.add_marker("quick")
    first_answer = next((item for item in items if item.path.name == ANSWERS), None)

    def turn(item: pytest.Item) -> int:
        name = item.path.name
        turns = [
            name in BESIDE,
            name in MEASURING,
            _asks_for_the_notebooks(item),
            item is first_answer,
            name in WITH_THE_ANSWERS,
            name == ANSWERS,
            name in ALONE,
        ]
        return turns.index(True) if any(turns) else -1

    items.sort(key=turn)


def pytest_collection_finish(session: pytest.Session) -> None:
    beside = [item for item in session.items if item.path.name in BESIDE]
    whole = beside and any(map(_asks_for_the_notebooks, session.items))
    if whole and not session.config.option.collectonly:
        session.config.pluginmanager.register(Lane(beside))


def _asks_for_the_notebooks(item: pytest.Item) -> bool:
    return "notebooks_report" in getattr(item, "fixturenames", ())


class NotebooksRun(NamedTuple):
    """All notebooks, executed in a process of their own."""

    process: subprocess.Popen[bytes]
    output: Path
    report: Path


@pytest.fixture(scope="session", autouse=True)
def notebooks_run(
    request: pytest.FixtureRequest, session_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NotebooksRun | None]:
    """The notebooks, under way from the first test on; None if no test asks for them."""
    if not any(map(_asks_for_the_notebooks, request.session.items)):
        yield None
        return
    place = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "tests.notebooks.execute", str(place / "report.json")]
    with own_home() as home, (place / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"LABKIT_HOME": str(home)},
            stdout=output,
            stderr=output,
        )
        yield NotebooksRun(process, place / "output", place / "report.json")
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()


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
