"""What card payments cost: three charges for each order, and each is rounded to the cent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from .db import Database

CENT = Decimal("0.01")
BANK = ((100, Decimal("0.0115")), (500, Decimal("0.0085")), (10**9, Decimal("0.0065")))
CARD_SCHEME = Decimal("0.0013")
PROVIDER = Decimal("0.0095")

PAYMENTS = "SELECT customer, amount FROM labkit.orders WHERE id <= 50000"

Statement = tuple[int, int, Decimal, Decimal]  # customer, payments, amount, fees


@dataclass(frozen=True, slots=True)
class Payment:
    """One order, paid by card."""

    customer: int
    amount: Decimal

    def fee(self) -> Decimal:
        """What the bank takes, by the size of the order, and the card scheme, and the provider."""
        bank = next(rate for limit, rate in BANK if self.amount <= limit)
        charges = (self.amount * rate for rate in (bank, CARD_SCHEME, PROVIDER))
        return sum((charge.quantize(CENT, ROUND_HALF_UP) for charge in charges), Decimal(0))


def add_up(rows: Iterable[Sequence[Any]]) -> list[Statement]:
    """Make a statement for each customer."""
    accounts: dict[int, list[Any]] = {}
    for row in rows:
        payment = Payment(*row)
        account = accounts.setdefault(payment.customer, [0, Decimal(0), Decimal(0)])
        account[0] += 1
        account[1] += payment.amount
        account[2] += payment.fee()
    return [(customer, *account) for customer, account in sorted(accounts.items())]


async def fees(db: Database) -> list[Statement]:
    """The statements of all customers, over 50,000 payments."""
    async with db.connection() as connection:
        rows = await connection.fetch(PAYMENTS)
    return add_up(rows)
