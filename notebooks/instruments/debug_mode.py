"""asyncio's debug mode around a scenario, and what it warned of. Notebook 01 explains it."""

import asyncio
import re
from collections.abc import Awaitable, Callable

import labkit as lab

Scenario = Callable[[lab.Load], Awaitable[None]]


def in_debug_mode(scenario: Scenario) -> Scenario:
    """The same scenario on a loop in debug mode, which warns of callbacks longer than 50 ms."""

    async def watched(load: lab.Load) -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.05  # seconds
        await scenario(load)

    name = getattr(scenario, "__name__", "scenario")
    watched.__name__ = f"{name}, in debug mode"
    return watched


def slow_callbacks(run: lab.Run, offer: str) -> list[str]:
    """The warnings of slow callbacks in an offer's tasks, without the names of directories."""
    warnings = [re.sub(r"[^\s=]*[/\\]", "", text) for text in run.warnings]
    return [text for text in warnings if "Executing" in text and f"name='{offer} " in text]
