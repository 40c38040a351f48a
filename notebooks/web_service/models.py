"""What the service answers with."""

from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel


class Order(BaseModel):
    """One order."""

    id: int
    customer: int
    amount: Decimal
    note: str
    created_at: datetime


class Credit(BaseModel):
    """What a customer has ordered so far."""

    customer: int
    orders: int
    amount: Decimal


class Offer(BaseModel):
    """The cheapest way to send an order."""

    carrier: str
    price: Decimal


class Credentials(BaseModel):
    """Who wants to sign in."""

    user: str
    password: str


class Session(BaseModel):
    """Who has signed in."""

    user: str


class Payment(BaseModel):
    """A card payment."""

    order: int
    card: str


class Receipt(BaseModel):
    """What became of a payment."""

    order: int
    accepted: bool
