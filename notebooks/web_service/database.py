"""What endpoints depend on: a connection of the pool, the settings."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Request

from web_service.settings import Settings


async def connection(request: Request) -> AsyncIterator[Any]:
    """Borrow a connection for as long as the request takes."""
    async with request.app.state.pool.acquire() as borrowed:
        yield borrowed


async def settings(request: Request) -> Settings:
    """What the service was told when it started."""
    told: Settings = request.app.state.settings
    return told


Connection = Annotated[Any, Depends(connection)]
CurrentSettings = Annotated[Settings, Depends(settings)]
