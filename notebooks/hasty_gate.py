"""A gate with a deadline, written in a hurry. It belongs to an exercise."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def admit(gate: asyncio.Semaphore, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work()` with a place in the gate. Refuse after 100 ms of waiting. (Does it?)"""
    async with asyncio.timeout(0.1):
        async with gate:
            return await work()
