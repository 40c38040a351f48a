"""Start the service as a process, ask it, and end it, however the notebook goes."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import IO, Any

from labkit.errors import LabError
from web_service.settings import PARTS

PATIENCE = 30.0  # s; until it must be up, on a busy machine, too
GRACE = 3.0  # s; until what does not end is ended
OWNED = "WEB_SERVICE_OWNED"  # whether a process of the service is to end with its input
PYTHON = [sys.executable, "-m", "web_service"]
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
NOT_INHERITED = {"SSL_CERT_FILE", "SSL_CERT_DIR"}  # httpx would read other certificates


@dataclass(slots=True)
class Service:
    """A service that runs, or has run.

    Attributes:
        url: Where it answers: "http://127.0.0.1:PORT".
        process: Its process; with several workers, the one that keeps them.
    """

    url: str
    process: subprocess.Popen[bytes]
    _output: IO[str]  # a handle of its own: the process writes by another
    _secret: str
    _last: list[str] = field(default_factory=list)  # its lines, once it has ended

    def get(self, path: str) -> Any:
        """Ask it, on a connection of its own; returns what the JSON says, or the text.

        Raises:
            LabError: It answered with an error.
        """
        try:
            with NO_PROXY.open(self.url + path, timeout=5) as answer:
                text = answer.read().decode()
                return json.loads(text) if "json" in answer.headers["content-type"] else text
        except urllib.error.HTTPError as error:
            with error:
                raise LabError(
                    f"The service answered {error.code} {error.reason} to GET {path}. Expected "
                    "200. (Only a service that runs with watched=True has /probe and /metrics.)"
                ) from None

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many workers are up: it answers as soon as one of them is.

        Raises:
            LabError: They did not come up in time.
        """
        until = time.monotonic() + PATIENCE
        while (up := str(self.log).count("startup complete")) < count:
            if time.monotonic() > until or self.process.poll() is not None:
                raise LabError(_ended(self, f"Only {up} of {count} workers came up"))
            time.sleep(0.05)

    @property
    def log(self) -> list[str]:
        """The lines that it has written so far, without its password."""
        if self._output.closed:
            return self._last
        self._output.seek(0)
        hidden = re.sub(r"//([^:@/\s]*):[^@\s]*@", r"//\1:***@", self._output.read())
        whole = rf"(?<!\w){re.escape(self._secret)}(?!\w)"  # "lab" is a part of "labkit", too
        return re.sub(whole, "***", hidden).splitlines()


@contextmanager
def run(
    dsn: str,
    *options: str,
    repaired: Iterable[str] = (),
    watched: bool = False,
    command: Iterable[str] = (),
    environment: Iterable[tuple[str, str]] = (),
) -> Iterator[Service]:
    """Run the service for as long as the block lasts, on a free port of 127.0.0.1.

    Args:
        dsn: Which PostgreSQL. It goes to the process by its environment: nobody else sees it.
        options: uvicorn's, such as "--loop", "asyncio", "--workers", "2".
        repaired: Which of its parts are the sound ones; `settings.PARTS` are all.
        watched: Whether a probe and a meter look at it from inside.
        command: What to start in place of `python -m web_service`.
        environment: Further variables for it.

    Raises:
        LabError: uvicorn is missing, no port is free, or the service did not come up.
    """
    if find_spec("uvicorn") is None:
        raise LabError(
            "uvicorn is not installed in this Python, so the service cannot run. Expected what "
            "requirements.txt names: run `pip install -r requirements.txt`."
        )
    if unknown := sorted({*repaired} - {*PARTS}):
        raise LabError(f"There is no part {unknown[0]!r}. Expected some of: {', '.join(PARTS)}.")
    port = free_port()
    env = environment_of_its_own() | {
        "PYTHONUNBUFFERED": "1",
        OWNED: "yes",
        "WEB_SERVICE_DSN": dsn[:],
        "WEB_SERVICE_REPAIRED": " ".join(repaired),
        "WEB_SERVICE_WATCHED": "yes" if watched else "",
        **dict(environment),
    }
    secret = (re.findall(r"//[^:@/]*:([^@]+)@", dsn[:]) or ["\0"])[0]
    # What it writes goes into a file: a pipe that nobody reads would fill up and stop it.
    with _file() as (written, output):
        process = subprocess.Popen(
            [*(command or PYTHON), "--port", str(port), *options],
            env=env,
            stdin=subprocess.PIPE,
            stdout=written,
            stderr=written,
            start_new_session=sys.platform != "win32",  # the stop button is for the notebook
        )
        service = Service(f"http://127.0.0.1:{port}", process, output, secret)
        try:
            _wait_until_up(service)
            yield service
            if process.poll() is not None:
                print(_ended(service, f"The service ended by itself, with status {process.poll()}"))
        finally:
            _end(process)
            service._last = service.log


def environment_of_its_own() -> dict[str, str]:
    """This process's environment, for one that finds the same modules, and no proxy."""
    inherited = {key: value for key, value in os.environ.items() if key not in NOT_INHERITED}
    no_proxy = {"NO_PROXY": "*", "no_proxy": "*"}
    return inherited | no_proxy | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUTF8": "1"}


@contextmanager
def _file() -> Iterator[tuple[IO[bytes], IO[str]]]:
    """A file to write to and, with a position of its own, to read from; deleted in the end."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = os.path.join(folder, "log")
        with open(path, "wb") as written, open(path, encoding="utf-8", errors="replace") as read:
            yield written, read


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on.

    Raises:
        LabError: There is none.
    """
    failed = ""
    for _ in range(50):
        # Below 32768, where Linux begins to give out ports: until the service listens, any other
        # program that asks for one may get this.
        port = 20_000 + secrets.randbelow(12_768)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError as error:
            failed = error.strerror or str(error)
    raise LabError(
        f"There is no free port on 127.0.0.1 for the service: {failed}. "
        "Expected one: close programs that hold many connections, and run the cell again."
    )


def _wait_until_up(service: Service) -> None:
    until = time.monotonic() + PATIENCE
    while service.process.poll() is None:
        with contextlib.suppress(OSError, LabError):
            service.get("/openapi.json")
            return
        if time.monotonic() > until:
            raise LabError(_ended(service, f"The service did not come up within {PATIENCE:g} s"))
        time.sleep(0.05)
    status = service.process.poll()
    raise LabError(_ended(service, f"The service ended with status {status} before it was up"))


def _ended(service: Service, what: str) -> str:
    last = "\n".join(f"    {line}" for line in service.log[-8:])
    return f"{what}. Expected that it answers on {service.url}. Its last lines:\n{last}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """The end of its input is its order to end; it comes when this process is killed, too."""
    assert process.stdin
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(GRACE + 1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# In the service's own process.

_watching = threading.Lock()


def end_with_its_owner() -> None:
    """From here on this process ends when its input does; a worker, when its parent is gone."""
    if OWNED not in os.environ or not _watching.acquire(blocking=False):
        return  # it was started otherwise; or somebody waits already

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        signal.raise_signal(signal.SIGTERM)  # uvicorn answers what is under way, and ends
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=wait, name="owner", daemon=True).start()
