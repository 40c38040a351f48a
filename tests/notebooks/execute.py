"""Execute all notebooks as `labkit run` does, and look at what they left on the server.

In a process and a home of its own, so that other tests can run meanwhile. Writes run's report, with
"left" beside the notebooks: the schema's tables, and how many sessions there still are.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import asyncpg

from labkit.server import database, embedded
from labkit.workbook.run import run

# Sessions of the notebooks, and so their locks. Jupyter's kernels are gone by now.
OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


async def left(dsn: str) -> tuple[list[str], int]:
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = $1", "labkit"
        )
        return [row[0] for row in found], await connection.fetchval(OTHERS)
    finally:
        await connection.close()


if __name__ == "__main__":
    report = Path(sys.argv[1])
    vars(sys.modules[run.__module__])["ATTEMPTS"] = 1  # an inconclusive notebook says enough here
    try:
        dsn = database()
        run(report=report)
        found = json.loads(report.read_text("utf-8")) | {"left": asyncio.run(left(dsn))}
        report.write_text(json.dumps(found), "utf-8")
    finally:
        embedded.stop(embedded.place())
