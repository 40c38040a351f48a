"""A customer's credit. The check is older than the service, and others depend on it."""

from typing import Annotated

from fastapi import APIRouter, Depends

from web_service.database import Connection
from web_service.models import Credit

router = APIRouter()

# pg_sleep stands for a report on a cold table: 120 ms, the same on every machine.
CREDIT = """
    SELECT count(*), sum(amount) FROM labkit.orders, pg_sleep(0.12) WHERE customer = $1
"""


async def checked_credit(customer: int, connection: Connection) -> Credit:
    """Ask through the pool: while PostgreSQL works, the loop serves the others."""
    orders, amount = await connection.fetchrow(CREDIT, customer)
    return Credit(customer=customer, orders=orders, amount=amount)


@router.get("/customers/{customer}/credit")
async def read_credit(credit: Annotated[Credit, Depends(checked_credit)]) -> Credit:
    """What a customer has ordered so far."""
    return credit
