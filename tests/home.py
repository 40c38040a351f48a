"""A place of its own for a server, on this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def own_home(prefix: str = "labkit-tests-") -> Iterator[Path]:
    """A new directory, open to all: root has the server run by the user nobody."""
    home = Path(tempfile.mkdtemp(prefix=prefix)).resolve()  # pytest's own are closed to nobody
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home)
