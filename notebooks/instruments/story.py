"""A story on one connection, told step by step: who sent what, and what came of it. Notebook 03."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pandas as pd

Steps = list[tuple[str, str, str]]  # who, the statement, what came of it
Run = Callable[[str, str], Awaitable[None]]  # who, the statement
Story = Callable[[asyncpg.Connection, Run, Steps], Awaitable[None]]


async def on_one_connection(
    dsn: str, story: Story, wrap: Callable[[asyncpg.Connection], Any] = lambda it: it
) -> pd.DataFrame:
    """Let a story happen, then look into the table that it wrote to.

    Args:
        dsn: Which server.
        story: Gets the connection, a coroutine function `run(who, statement)`, and the list of
            steps. Its table is `notes (what text)`, a temporary one.
        wrap: What stands between `run` and the connection, a lock for example.

    Returns:
        A row a step (columns: who, statement, what came of it); the last: what is in the table.
    """
    steps: Steps = []
    connection = await asyncpg.connect(dsn)
    source = wrap(connection)

    async def run(who: str, statement: str) -> None:
        steps.append((who, statement, await source.execute(statement)))

    try:
        await connection.execute("CREATE TEMP TABLE notes (what text)")
        await story(connection, run, steps)
        notes = await connection.fetchval("SELECT string_agg(what, ', ') FROM notes")
        steps.append(("anybody", "what is in the table?", notes or "nothing"))
    finally:
        await connection.close()
    return pd.DataFrame(steps, columns=["who", "statement", "what came of it"])


async def outcome(awaitable: Awaitable[object]) -> str:
    """What came of it: "done", or the error in words."""
    try:
        await awaitable
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "done"
