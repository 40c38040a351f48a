"""A fleet of instances, each a process with a pool of its own, for pitfall 5 of notebook 07.

First the instance, which is plain asyncpg; then `run`, which starts several and asks them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

# Each instance asks a question of its own, so that it would notice somebody else's answer. The
# answer also tells which of the server's processes gave it.
QUESTION = "SELECT {number}, pg_backend_pid() FROM pg_sleep(0.02)"

ERRORS = asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError


async def instance(
    number: int, dsn: str, clients: int, requests: int, pool_options: dict[str, Any]
) -> None:
    """Open a pool; when told so, let each of several clients make its requests, one by one."""
    try:
        pool = await asyncpg.create_pool(dsn, timeout=10, command_timeout=10, **pool_options)
    except ERRORS as error:
        say(started=False, said=_in_short(error))
        return
    say(started=True)
    seen: Counter[str] = Counter()
    backends = set()

    async def client() -> None:
        for _ in range(requests):
            try:
                answer, backend = await pool.fetchrow(QUESTION.format(number=number))
            except ERRORS as error:
                seen[_in_short(error)] += 1
                await asyncio.sleep(0.02)  # an answer would have taken as long
            else:
                seen["right" if answer == number else "wrong"] += 1
                backends.add(backend)

    await asyncio.to_thread(sys.stdin.readline)
    work = asyncio.gather(*(client() for _ in range(clients)))
    end = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
    await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        say(seen=seen, size=pool.get_size(), backends=sorted(backends))
    await end  # keeps its connections until all instances are done
    work.cancel()
    await pool.close()


def _in_short(error: Exception) -> str:
    said = (str(error).splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: " + re.sub(r"(?<=_stmt_)[0-9a-f]+(?=__)", "N", said)


# The fleet


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fleet.

    Attributes:
        started: How many instances came up.
        failures: What those said that did not.
        right: How many requests got their own answer.
        wrong: How many got an answer to somebody else's question.
        errors: What the others got, and how often.
        missing: How many were not made, because their instance had not come up.
        pooled: Connections in all pools together, at the end.
        backends: Processes of the server that gave the answers.
    """

    started: int
    failures: list[str]
    right: int
    wrong: int
    errors: Counter[str]
    missing: int
    pooled: int
    backends: int

    @property
    def failed(self) -> int:
        """How many requests ended in an error."""
        return self.errors.total()


def run(
    dsn: str, *, instances: int = 4, clients: int = 5, requests: int = 10, **pool_options: Any
) -> Outcome:
    """Start instances one after the other, as a deployment does; then ask them all at once.

    Args:
        dsn: Which server, or which PgBouncer before one.
        instances: How many processes.
        clients: How many requests each instance has under way at once.
        requests: How many requests each client makes, one after the other.
        pool_options: For each instance's `asyncpg.create_pool`: min_size, max_size, and so on.
    """
    reports, failures = [], []
    with ExitStack() as stack:
        fleet = [stack.enter_context(program(__file__, "instance")) for _ in range(instances)]
        up = []
        for number, process in enumerate(fleet):
            order = {"number": number, "dsn": dsn, "clients": clients, "requests": requests}
            tell(process, **order, pool_options=pool_options)
            answer = hear(process)
            failures += [] if answer["started"] else [answer["said"]]
            up += [process] if answer["started"] else []
        for process in up:
            tell(process)
        reports = [hear(process) for process in up]
    seen = sum((Counter(report["seen"]) for report in reports), Counter[str]())
    return Outcome(
        started=len(up),
        failures=failures,
        right=seen.pop("right", 0),
        wrong=seen.pop("wrong", 0),
        errors=seen,
        missing=len(failures) * clients * requests,
        pooled=sum(report["size"] for report in reports),
        backends=len({backend for report in reports for backend in report["backends"]}),
    )


# The processes: each reads orders from its input, a line of JSON each, and answers likewise.


@contextmanager
def program(file: str, what: str) -> Iterator[subprocess.Popen[str]]:
    """Run one of the programs in a module here as a process, and end it."""
    path = os.pathsep.join(sys.path)  # it finds what this process finds
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen(
        [sys.executable, file, what],
        env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
        start_new_session=sys.platform != "win32",  # the stop button is for the notebook
        **pipes,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
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
        process.stderr.close()


def tell(process: subprocess.Popen[str], **order: Any) -> None:
    assert process.stdin
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    assert process.stderr
    if line := process.stdout.readline():
        answer: dict[str, Any] = json.loads(line)
        return answer
    raise RuntimeError(f"A process of the fleet ended: {process.stderr.read().strip()}")


def say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(instance(**json.loads(sys.stdin.readline())))
