"""Tests that fail when an endpoint holds the loop. The environment says which service to test.

WEB_SERVICE_DSN=postgresql://… WEB_SERVICE_REPAIRED="credit export" pytest test_endpoints.py
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import uvicorn

from web_service.app import create_app
from web_service.client import ask
from web_service.process import free_port
from web_service.settings import PARTS, from_environment

THRESHOLD_MS = 15
# The last is no part, but payments whose collector answers at once.
each_endpoint = pytest.mark.parametrize("endpoint", [*PARTS, "payments, quick"])


@asynccontextmanager
async def client_of(endpoint: str) -> AsyncIterator[aiohttp.ClientSession]:
    """The service on this loop, and a client of it; its first request is over."""
    settings = from_environment()
    if endpoint.endswith("quick"):
        settings = replace(settings, collector_s=0.001)
    app, port = create_app(settings), free_port()
    config = uvicorn.Config(app, port=port, log_level="critical", lifespan="off")
    async with app.router.lifespan_context(app):  # here, what fails at the start is raised
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                await ask(session, endpoint.partition(",")[0])
                yield session
        finally:
            server.should_exit = True
            await running


def call(endpoint: str, watched: Any) -> None:
    """One request to the endpoint, on a loop of its own, inside what watches that."""

    async def main() -> None:
        async with client_of(endpoint) as session:
            with watched:
                await ask(session, endpoint.partition(",")[0])

    asyncio.run(main())


@each_endpoint
def test_it_answers(endpoint: str) -> None:
    """Without a detector: where this fails, the failures of the others tell nothing."""
    call(endpoint, nullcontext())


@each_endpoint
def test_by_the_probe(endpoint: str, no_stalls: Any) -> None:
    """Fails with the line that held the loop."""
    call(endpoint, no_stalls(THRESHOLD_MS))


@each_endpoint
def test_by_blockbuster(endpoint: str) -> None:
    """Fails since the endpoint does: blockbuster raises where a known call would block."""
    blockbuster = pytest.importorskip("blockbuster")
    call(endpoint, blockbuster.blockbuster_ctx())
