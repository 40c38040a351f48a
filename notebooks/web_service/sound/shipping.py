"""What it costs to send an order: the cheapest of eight carriers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal

import httpx
from fastapi import APIRouter, FastAPI, Request

from web_service.carriers import PRICES
from web_service.models import Offer


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for as long as the service runs: its certificates are read once."""
    async with httpx.AsyncClient() as app.state.carriers:
        yield


router = APIRouter(lifespan=lifespan)


async def ask(client: httpx.AsyncClient, carrier: str, url: str) -> Offer:
    """Ask one carrier for its price."""
    answer = await client.get(f"{url}carriers/{carrier}")
    return Offer(carrier=carrier, price=Decimal(answer.json()))


@router.get("/orders/{order}/shipping")
async def read_offer(order: int, request: Request) -> Offer:
    """Ask all of them at once."""
    client, url = request.app.state.carriers, f"{request.base_url}"
    offers = await asyncio.gather(*(ask(client, carrier, url) for carrier in PRICES))
    return min(offers, key=lambda offer: offer.price)
