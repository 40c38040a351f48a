"""How the fleet's processes are started, ended and talked to: a line of JSON for each message."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def program(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Run a module of this folder, such as "fleet.instance", as a process; end it afterwards."""
    path = os.pathsep.join(sys.path)  # it finds what this process finds
    # What it warns of goes into a file: a pipe that nobody reads would fill up and stop it.
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            encoding="utf-8",
            start_new_session=sys.platform != "win32",  # the stop button is for the notebook
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        process.stderr = errors
        assert process.stdin
        assert process.stdout
        try:
            yield process
        finally:
            # The end of its input is its order to end; it comes when this process is killed, too.
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def tell(process: subprocess.Popen[str], **order: Any) -> None:
    """Give a process an order."""
    assert process.stdin
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a process's answer."""
    assert process.stdout
    assert process.stderr
    if line := process.stdout.readline():
        answer: dict[str, Any] = json.loads(line)
        return answer
    process.wait(30)
    process.stderr.seek(0)
    raise RuntimeError(f"A process of the fleet ended: {process.stderr.read().strip()}")


def say(**answer: Any) -> None:
    """Answer, from inside such a process."""
    print(json.dumps(answer), flush=True)
