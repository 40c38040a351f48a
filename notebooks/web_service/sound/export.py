"""All orders of a quarter, for the accountant."""

from fastapi import APIRouter, Response

from web_service.database import Connection
from web_service.models import Order

router = APIRouter()

# To the second, as these are; where there is more, the format is SS.US.
QUARTER = """
    SELECT coalesce(json_agg(json_build_object(
        'id', id, 'customer', customer, 'amount', amount::text, 'note', note, 'created_at',
        to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
    ) ORDER BY id), '[]')::text
    FROM labkit.orders WHERE id <= 20000
"""


@router.get("/exports/orders", response_model=list[Order])
async def export_orders(connection: Connection) -> Response:
    """20,000 rows; PostgreSQL makes the JSON, and no row becomes a Python object."""
    return Response(await connection.fetchval(QUARTER), media_type="application/json")
