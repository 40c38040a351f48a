"""All orders of a quarter, for the accountant."""

from typing import Any

from fastapi import APIRouter

from web_service.database import Connection
from web_service.models import Order

router = APIRouter()

QUARTER = """
    SELECT id, customer, amount, note, created_at FROM labkit.orders WHERE id <= 20000 ORDER BY id
"""


@router.get("/exports/orders", response_model=list[Order])
async def export_orders(connection: Connection) -> Any:
    """20,000 rows; FastAPI makes an Order of each once this has returned, and JSON of that."""
    return [dict(row) for row in await connection.fetch(QUARTER)]
