"""The application factory: `uvicorn web_service.app:create_app --factory`."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from importlib import import_module

import anyio._backends._asyncio  # noqa: F401 (else the first request would import it, on the loop)
import asyncpg
from fastapi import Depends, FastAPI

from web_service import carriers, orders, process, watch
from web_service.settings import PARTS, Settings, from_environment

POOL_SIZE = 5


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool when the service starts, and close it when it ends."""
    settings: Settings = app.state.settings
    process.end_with_its_owner()
    gc.collect()
    gc.freeze()  # what is here now stays: no collection has to look at it again
    async with asyncpg.create_pool(
        settings.dsn, min_size=POOL_SIZE, max_size=POOL_SIZE, command_timeout=10
    ) as app.state.pool:
        with watch.inside(app) if settings.watched else nullcontext():
            yield


def create_app(settings: Settings | None = None) -> FastAPI:
    """Put the service together, with the parts that are repaired and those that are not."""
    settings = settings or from_environment()
    everywhere = [Depends(watch.name_the_task)] if settings.watched else []
    app = FastAPI(title="Orders", lifespan=lifespan, dependencies=everywhere)
    app.state.settings = settings
    for part in PARTS:
        package = "sound" if part in settings.repaired else "sick"
        app.include_router(import_module(f"web_service.{package}.{part}").router)
    for always in (orders, carriers, *[watch] * settings.watched):
        app.include_router(always.router)
    return app
