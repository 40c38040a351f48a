"""A customer's credit. The check is older than the service, and others depend on it."""

from contextlib import closing
from typing import Annotated

import psycopg2
from fastapi import APIRouter, Depends

from web_service.database import CurrentSettings
from web_service.models import Credit

router = APIRouter()

# pg_sleep stands for a report on a cold table: 120 ms, the same on every machine.
CREDIT = """
    SELECT count(*), sum(amount) FROM labkit.orders, pg_sleep(0.12) WHERE customer = %s
"""


async def checked_credit(customer: int, settings: CurrentSettings) -> Credit:
    """Ask as the rest of the service once did."""
    with closing(psycopg2.connect(settings.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(CREDIT, (customer,))
        orders, amount = cursor.fetchone()
    return Credit(customer=customer, orders=orders, amount=amount)


@router.get("/customers/{customer}/credit")
async def read_credit(credit: Annotated[Credit, Depends(checked_credit)]) -> Credit:
    """What a customer has ordered so far."""
    return credit
