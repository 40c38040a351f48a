"""Stands for the carriers' own services, somewhere on the network: what they charge."""

from decimal import Decimal

from fastapi import APIRouter

router = APIRouter(prefix="/carriers")

PRICES = {"albatross": Decimal("4.90"), "bison": Decimal("4.40"), "camel": Decimal("5.20")}


@router.get("/{carrier}")
async def read_price(carrier: str) -> Decimal:
    """What a carrier takes for a parcel."""
    return PRICES[carrier]
