"""Stands for the carriers' own services, somewhere on the network: what they charge."""

from decimal import Decimal

from fastapi import APIRouter

router = APIRouter(prefix="/carriers")

CENTS = {"albatross": 490, "bison": 440, "camel": 520, "dingo": 610}
CENTS |= {"eland": 530, "falcon": 590, "gecko": 480, "heron": 550}
PRICES = {name: Decimal(cents) / 100 for name, cents in CENTS.items()}


@router.get("/{carrier}")
async def read_price(carrier: str) -> Decimal:
    """What a carrier takes for a parcel."""
    return PRICES[carrier]
