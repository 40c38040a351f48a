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
    # Not one of pytest's, which the user nobody cannot enter.
    home = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home)
