"""What several files of these tests need."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
import pytest

from labkit.server import Dsn
from tests.notebooks.served import sessions
from tests.server.test_embedded import until


@pytest.fixture
def nothing_is_left(dsn: Dsn) -> Iterator[None]:
    """No process, no port and no connection, once the test is over."""
    before = {p.pid for p in psutil.Process().children()}  # each has children that come and go
    yield
    until(lambda: {p.pid for p in psutil.Process().children()} <= before)
    until(lambda: sessions(dsn) == 0)
