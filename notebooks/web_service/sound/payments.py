"""Card payments. What is declined is logged, and the log goes to a collector."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from logging.handlers import QueueHandler, QueueListener
from queue import SimpleQueue
from typing import Any

from fastapi import APIRouter, FastAPI

from web_service.collector import Address, collector, send
from web_service.models import Payment, Receipt

log = logging.getLogger("web_service.payments")


class CollectorHandler(logging.Handler):
    """Sends each record as soon as it comes out of the queue."""

    def __init__(self, address: Address) -> None:
        super().__init__(logging.WARNING)
        self.address = address

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        try:
            send(self.address, self.format(record))
        except OSError:
            self.handleError(record)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The loop only puts a record into a queue; a thread takes it out, sends it, and waits."""
    queue: SimpleQueue[Any] = SimpleQueue()
    with collector(app.state.settings.collector_s) as address:
        handler, listener = (
            QueueHandler(queue),
            QueueListener(queue, CollectorHandler(address), respect_handler_level=True),
        )
        listener.start()
        log.addHandler(handler)
        try:
            yield
        finally:
            log.removeHandler(handler)
            await asyncio.to_thread(listener.stop)  # it waits until the queue is empty


router = APIRouter(lifespan=lifespan)


@router.post("/payments")
async def pay(payment: Payment) -> Receipt:
    """Take a payment, if the card is good."""
    accepted = payment.card.startswith("4")
    if not accepted:
        log.warning("order %s: card declined", payment.order)
    return Receipt(order=payment.order, accepted=accepted)
