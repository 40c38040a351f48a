"""What it costs to send an order: the cheapest of eight carriers."""

import asyncio
from decimal import Decimal

import httpx
from fastapi import APIRouter, Request

from web_service.carriers import PRICES
from web_service.models import Offer

router = APIRouter()


async def ask(carrier: str, url: str) -> Offer:
    """Ask one carrier for its price."""
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{url}carriers/{carrier}")
    return Offer(carrier=carrier, price=Decimal(answer.json()))


@router.get("/orders/{order}/shipping")
async def read_offer(order: int, request: Request) -> Offer:
    """Ask all of them at once."""
    url = f"{request.base_url}"
    offers = await asyncio.gather(*(ask(carrier, url) for carrier in PRICES))
    return min(offers, key=lambda offer: offer.price)
