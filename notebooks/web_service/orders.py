"""One order: the cheap endpoint, which most requests want. Nothing is wrong with it."""

from fastapi import APIRouter, HTTPException

from web_service.database import Connection
from web_service.models import Order

router = APIRouter()

ORDER = "SELECT id, customer, amount, note, created_at FROM labkit.orders WHERE id = $1"


@router.get("/orders/{order}")
async def read_order(order: int, connection: Connection) -> Order:
    """Look up one order by its primary key."""
    found = await connection.fetchrow(ORDER, order)
    if found is None:
        raise HTTPException(404, f"There is no order {order}.")
    return Order(**found)
