"""A gate with a deadline, written in a hurry, and the error that it should raise. Notebook 05."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Overloaded(Exception):  # noqa: N818 (nothing went wrong: it is an answer)
    """Nothing was begun and nothing is broken: try again after a pause.

    A web service would answer with status 503 and a `Retry-After` header.
    """


async def admit(gate: asyncio.Semaphore, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work()` with a place in the gate. Refuse after 100 ms of waiting. (Does it?)"""
    async with asyncio.timeout(0.1):
        async with gate:
            return await work()
