"""A stopwatch inside `asyncpg.connect`, for notebook 02: around two things that asyncpg calls."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import labkit as lab


@contextmanager
def time_connects(load: lab.Load) -> Iterator[list[bool]]:
    """Record a span "TCP" and a span "proof" for each connection that the running loop opens.

    TCP is the loop's `create_connection`. The proof is `hashlib.pbkdf2_hmac`, which computes the
    answer to the server's SCRAM challenge; a server may ask for none.

    Yields:
        A list that grows: for each proof, whether it was computed on the loop's thread.
    """
    loop, the_loops_thread = asyncio.get_running_loop(), threading.get_ident()
    dial, prove = loop.create_connection, hashlib.pbkdf2_hmac
    on_the_loop: list[bool] = []

    async def timed_dial(*args: Any, **kwargs: Any) -> Any:
        with load.span("TCP"):
            return await dial(*args, **kwargs)

    def timed_proof(*args: Any) -> bytes:
        on_the_loop.append(threading.get_ident() == the_loops_thread)
        with load.span("proof"):
            return prove(*args)

    with (
        patch.object(loop, "create_connection", timed_dial),
        patch.object(hashlib, "pbkdf2_hmac", timed_proof),
    ):
        yield on_the_loop
