import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.exercises import find_lessons
from labkit.server import COMPOSE_PLACE, Dsn, database, embedded

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
    "test_database.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in QUICK:
            item.add_marker("quick")


@pytest.fixture(scope="session", autouse=True)
def session_home() -> Iterator[Path]:
    """Keep every test away from the server and the database that belong to the user."""
    host, _, port = COMPOSE_PLACE.partition(":")
    with socket.socket() as caller:
        if caller.connect_ex((host, int(port))) == 0:
            pytest.exit(
                "Compose's server would be used by these tests: `docker compose down` first"
            )
    home = Path(tempfile.mkdtemp(prefix="labkit-tests-")).resolve()
    home.chmod(0o755)  # pytest's own directories are closed to the user nobody
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL", raising=False)
        patch.setenv("LABKIT_HOME", str(home))
        yield home
        embedded.stop(embedded.place())
    shutil.rmtree(home)


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
