"""The web service's process: what it says when something fails, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import urllib.error
from collections.abc import Iterator

import aiohttp
import psutil
import pytest
from web_service import client, process

import labkit
from labkit.exercises import notebooks
from labkit.server import Dsn
from tests.notebooks.served import posix_only
from tests.notebooks.test_fleet import runs
from tests.server.test_embedded import until

# What it says when it fails


def test_without_a_free_port_a_sentence_says_so(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch, nothing_is_left: None
) -> None:
    def none(*_: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket, "create_server", none)
    with (
        pytest.raises(labkit.LabError, match=r"no free port on 127\.0\.0\.1.* Address already"),
        process.run(dsn),
    ):
        pass


def test_a_port_that_is_taken_meanwhile_is_told_by_the_service_s_last_lines(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch, nothing_is_left: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(process, "free_port", lambda: taken.getsockname()[1])
        taken.settimeout(0)  # nobody answers there
        expected = r"(?s)before it was up.*address already in use"
        with pytest.raises(labkit.LabError, match=expected), process.run(dsn):
            pass


def test_without_uvicorn_a_sentence_says_what_to_do(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "find_spec", lambda name: None)
    with (
        pytest.raises(labkit.LabError, match=r"uvicorn is not installed .* requirements\.txt"),
        process.run(dsn),
    ):
        pass


def test_an_unknown_part_is_refused_with_the_known_ones(dsn: Dsn) -> None:
    with (
        pytest.raises(labkit.LabError, match=r"no part 'nope'\. Expected .*credit, shipping"),
        process.run(dsn, repaired=["nope"]),
    ):
        pass


def test_a_service_that_cannot_start_shows_its_last_lines_without_the_password(
    dsn: Dsn, nothing_is_left: None
) -> None:
    url = dsn[:]
    password = re.findall(r"//[^:]+:([^@]+)@", url)[0]
    wrong = Dsn(url.replace(password, "a-secret-of-mine"))
    with (
        pytest.raises(labkit.LabError, match=r"(?s)before it was up.*last lines.*InvalidPass") as e,
        process.run(wrong),
    ):
        pass
    assert "a-secret-of-mine" not in str(e.value)


def test_a_password_that_is_part_of_a_word_hides_no_other_word(
    dsn: Dsn, nothing_is_left: None
) -> None:
    says = "print('labkit.probe: lab, //user:lab@host')"
    compose = Dsn(re.sub(r":[^:@]+@", ":lab@", dsn[:]))  # as docker-compose.yml has it
    with (
        pytest.raises(labkit.LabError, match=r"labkit\.probe: \*\*\*, //user:\*\*\*@host"),
        process.run(compose, command=[sys.executable, "-c", says]),
    ):
        pass


def test_a_service_that_does_not_come_up_in_time_is_ended(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch, nothing_is_left: None
) -> None:
    monkeypatch.setattr(process, "PATIENCE", 2.0)
    monkeypatch.setattr(process, "GRACE", 0.5)
    code = f"print('I sleep, {dsn[:]}', flush=True); import time; time.sleep(60)"
    with (
        pytest.raises(labkit.LabError, match=r"(?s)not come up within 2 s.*I sleep") as error,
        process.run(dsn, command=[sys.executable, "-c", code]),
    ):
        pass
    assert "lab:***@" in str(error.value)


def test_workers_that_do_not_all_come_up_in_time_are_counted(
    dsn: Dsn, monkeypatch: pytest.MonkeyPatch, nothing_is_left: None
) -> None:
    with process.run(dsn, "--workers", "2") as service:
        service.wait_for_workers(2)
        assert 2 == str(service.log).count("startup complete")
        monkeypatch.setattr(process, "PATIENCE", 0.2)
        expected = r"(?s)^Only 2 of 3 workers came up\. Expected .*last lines:\n    "
        with pytest.raises(labkit.LabError, match=expected):
            service.wait_for_workers(3)


def measured(dsn: Dsn, kills: bool = False) -> labkit.Run:
    """A run with 50 orders a second, and four requests that the service cannot answer."""

    async def under_load(load: labkit.Load) -> None:
        with process.run(dsn) as service:

            async def harm() -> None:
                if kills:
                    service.process.kill()
                await client.ask(session, "broken")

            async with aiohttp.ClientSession(service.url) as session:
                load.offer("order", lambda: client.ask(session, "order"), rate=50)
                load.offer("harm", harm, rate=4)
                await load.run(seconds=1)

    return labkit.measure(under_load)


@pytest.fixture(autouse=True)
def a_request_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    no_integer_of_postgresql_s = ("GET", "/orders/99999999999", None)
    monkeypatch.setitem(client.REQUESTS, "broken", no_integer_of_postgresql_s)


@posix_only
def test_a_service_that_dies_under_load_is_told_and_its_requests_are_counted(
    dsn: Dsn, capsys: pytest.CaptureFixture[str], nothing_is_left: None
) -> None:
    run = measured(dsn, kills=True)
    assert run.failed("order") > 20
    assert "The service ended by itself, with status -9" in capsys.readouterr().out
    assert {"ClientConnectorError", "ServerDisconnectedError"} & {
        error.partition(":")[0] for error in run.requests.error.dropna()
    }


def test_an_endpoint_that_answers_500_is_counted(dsn: Dsn, nothing_is_left: None) -> None:
    run = measured(dsn)
    assert run.failed("order") == 0
    assert run.failed("harm") == 4
    [said] = run.requests.error.dropna().unique()
    assert said == "ClientError: 500 Internal Server Error, for GET /orders/99999999999"


# What is left

KERNEL = """
import sys, time
sys.path[:0] = sys.argv[1].split(";")
from web_service import process
with process.run(sys.stdin.readline().strip(), *sys.argv[2:], watched=True) as service:
    print(service.process.pid, service.url, flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def kernel(dsn: Dsn, *options: str) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """Something that stands for a kernel, and the processes of the service that it has started."""
    command = [sys.executable, "-c", KERNEL, f"{notebooks()}", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=notebooks().parent
    ) as started:
        assert started.stdin
        assert started.stdout
        started.stdin.write(f"{dsn[:]}\n")
        started.stdin.flush()
        try:
            said = started.stdout.readline().split()
            assert said
            main = psutil.Process(int(said[0]))
            yield started, [main, *main.children(recursive=True)]
        finally:
            started.kill()


@posix_only
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["alone", "two workers"])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_however_the_kernel_ends(
    how: int, options: tuple[str, ...], dsn: Dsn, nothing_is_left: None
) -> None:
    with kernel(dsn, *options) as (started, service):
        assert len(service) >= 1 + len(options)
        started.send_signal(how)
        until(lambda: not any(runs(p) for p in service))


@posix_only
def test_no_worker_outlives_the_process_that_keeps_them(dsn: Dsn, nothing_is_left: None) -> None:
    with kernel(dsn, "--workers", "2") as (_, service):
        service[0].kill()
        until(lambda: not any(runs(p) for p in service[1:]), seconds=10)


def test_nothing_is_left_after_an_error_in_the_block(dsn: Dsn, nothing_is_left: None) -> None:
    with pytest.raises(ZeroDivisionError), process.run(dsn) as service:
        _ = 1 / 0
    assert service.process.returncode is not None
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        service.get("/orders/7")


def test_a_page_that_it_does_not_have_is_told_in_a_sentence(dsn: Dsn) -> None:
    wanted = "answered 404 Not Found to GET /probe"
    with pytest.raises(labkit.LabError, match=wanted), process.run(dsn) as service:
        service.get("/probe")


@posix_only
def test_the_stop_button_in_a_measurement_leaves_nothing(dsn: Dsn, nothing_is_left: None) -> None:
    code = """
import _thread, sys, threading
sys.path[:0] = sys.argv[1].split(";")
import aiohttp
import labkit as lab
from web_service import client, process
dsn = sys.stdin.readline().strip()
async def under_load(load):
    with process.run(dsn) as service:
        async with aiohttp.ClientSession(service.url) as session:
            load.offer("order", lambda: client.ask(session, "order"), rate=50)
            threading.Timer(0.5, _thread.interrupt_main).start()
            await load.run(seconds=30)
try:
    lab.measure(under_load)
except KeyboardInterrupt as stopped:
    print("stopped:", stopped)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, f"{notebooks()}"],
        input=f"{dsn[:]}\n",
        capture_output=True,
        text=True,
        timeout=60,
        cwd=notebooks().parent,
    )
    assert "stopped: under load was stopped" in done.stdout, done.stderr
