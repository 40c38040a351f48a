import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import embedded
from labkit.database import Dsn, database


@pytest.fixture(scope="session", autouse=True)
def session_home() -> Iterator[Path]:
    """Keep every test away from the server and the database that belong to the user."""
    home = Path(tempfile.mkdtemp(prefix="labkit-tests-")).resolve()
    home.chmod(0o755)  # pytest's own directories are closed to the user nobody
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL", raising=False)
        patch.setenv("LABKIT_HOME", str(home))
        yield home
    embedded.stop(home)
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def dsn(session_home: Path) -> Dsn:
    """A real PostgreSQL with the dataset, made for this run of the tests."""
    return database()
