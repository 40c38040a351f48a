"""A web service on the running loop, its archive, and a client outside of both: for `endpoint`."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import aiohttp
import anyio._backends._asyncio  # noqa: F401 (else the first request would import it, on the loop)
import uvicorn
from fastapi import FastAPI
from legacy.statement import Archive

SAFE = 0.06  # s; until a text is safe


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Run an application by uvicorn on this loop, on a free port; yields its URL."""
    options: dict[str, Any] = {"log_level": "critical", "timeout_graceful_shutdown": 0}
    server = uvicorn.Server(uvicorn.Config(app, port=0, **options))
    running = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.005)
        yield "http://{}:{}".format(*server.servers[0].sockets[0].getsockname())
    finally:
        server.should_exit = True
        await running


@asynccontextmanager
async def outside(url: str) -> AsyncIterator[Callable[[str], Awaitable[Any]]]:
    """Ask over HTTP from a loop in another thread; yields what takes a path and gives the JSON."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="lab: outside", daemon=True)
    thread.start()

    def there(work: Any) -> Awaitable[Any]:
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, loop))

    async def make() -> aiohttp.ClientSession:
        return aiohttp.ClientSession(url)

    async def get(path: str) -> Any:
        async with session.get(path) as answer:
            answer.raise_for_status()
            return await answer.json()

    session = await there(make())
    try:
        yield lambda path: there(get(path))
    finally:
        try:
            await there(session.close())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def make_safe() -> None:
    """What the archive does with a text before it answers; replaced by who wants to look then."""
    time.sleep(SAFE)


@contextmanager
def archive() -> Iterator[tuple[Archive, dict[int, str]]]:
    """An archive for as long as the block runs, and the texts that it has kept, by number."""
    kept: dict[int, str] = {}
    counting = threading.Lock()

    class Keep(StreamRequestHandler):
        def handle(self) -> None:
            text = self.rfile.read().decode()
            make_safe()
            with counting:
                kept[number := len(kept) + 1] = text
            self.wfile.write(str(number).encode())

    with ThreadingTCPServer(("127.0.0.1", 0), Keep) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield Archive(("127.0.0.1", server.server_address[1])), kept
        finally:
            server.shutdown()
            thread.join()
