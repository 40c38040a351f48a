"""One instance of the service: a process with a pool of its own. Plain asyncpg, and to be read."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from typing import Any

import asyncpg

from fleet.processes import say

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
    answers: Counter[str] = Counter()
    backends = set()

    async def client() -> None:
        for _ in range(requests):
            try:
                answer, backend = await pool.fetchrow(QUESTION.format(number=number))
            except ERRORS as error:
                answers[_in_short(error)] += 1
                await asyncio.sleep(0.02)  # an answer would have taken as long
            else:
                answers["right" if answer == number else "wrong"] += 1
                backends.add(backend)

    await asyncio.to_thread(sys.stdin.readline)
    work = asyncio.gather(*(client() for _ in range(clients)))
    end = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
    await asyncio.wait([work, end], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        say(answers=answers, size=pool.get_size(), backends=sorted(backends))
    await end  # keeps its connections until all instances are done
    work.cancel()
    await pool.close()


def _in_short(error: Exception) -> str:
    said = (str(error).splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: " + re.sub(r"(?<=_stmt_)[0-9a-f]+(?=__)", "N", said)


if __name__ == "__main__":
    asyncio.run(instance(**json.loads(sys.stdin.readline())))
