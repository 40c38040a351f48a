"""A bank, two tables and a pool, for the check of `transaction`."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import asyncpg
from exercises.instruments.meanwhile import Call, a_moment_until, end_of, held, opened
from legacy import sale
from legacy.sale import Declined

from instruments.scratch_table import scratch_table
from labkit.exercises import NotYet

Sell = Callable[[asyncpg.Pool, sale.Bank, int, int], Awaitable[bool]]
Sales = list[tuple[int, str]]  # customer, state
Meanwhile = Callable[[asyncio.Future[object]], Awaitable[object]]

SIZE = 5  # connections
ITEM, OTHER = 7, 8  # OTHER is not for sale: 3 are left, and one is reserved for customer 1
CUSTOMERS = 20
NEIGHBOUR = 99  # not of the crowd: somebody for whom one of ITEM is reserved, and stays so

# Finds the row if nobody has locked it against writing.
FREE_ROW = f"SELECT FROM labkit.stock WHERE item = {ITEM} FOR NO KEY UPDATE SKIP LOCKED"
SELL_ONE = f"UPDATE labkit.stock SET available = available - 1 WHERE item = {ITEM}"
LEFT = "SELECT available FROM labkit.stock WHERE item = $1"
SALES = """
    SELECT customer, state FROM labkit.sales
    WHERE item = $1 AND state IN ('reserved', 'paid') ORDER BY customer
"""


class UnforeseenError(Exception):
    """What nobody can name who has not read this check."""


class TheBank:
    """Answers when it is told to, or when everybody is here who can come."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[int] = []
        self.charged: list[int] = []
        self.at_once = self.most_at_once = self.gone = 0
        self.is_asked, self.may_answer = asyncio.Event(), asyncio.Event()

    async def charge(self, customer: int) -> None:
        """Every fourth customer's card is declined."""
        self.asked.append(customer)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.is_asked.set()
        self.count()
        try:
            await self.may_answer.wait()
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        if customer % 4 == 0:
            raise Declined(f"customer {customer}")
        self.charged.append(customer)

    def count(self) -> None:
        """Answer, if all the customers of the crowd are here or have gone."""
        if self.at_once + self.gone >= CUSTOMERS:
            self.may_answer.set()


class Shop:
    """A pool, two tables and a bank for an answer, and what was seen of it."""

    def __init__(self, dsn: str, answer: Sell) -> None:
        self.dsn, self.answer = dsn, answer
        self.pool: asyncpg.Pool
        self.observer: asyncpg.Connection
        self.bank: TheBank
        self.opened: list[asyncpg.Connection] = []  # in a sale, beside the pool
        self.left = 0
        self.sales: Sales = []
        self.half_way: list[tuple[int, Sales]] = []  # what others saw where a sale was stopped
        self.others_sold = False  # one, where a sale was stopped

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator[None]:
        """The tables and the pool, for as long as the block runs."""
        named = {"application_name": f"labkit exercise {os.getpid()}"}
        sizes = {"min_size": SIZE, "max_size": SIZE}
        columns = "customer integer, item integer, state text, PRIMARY KEY (customer, item)"
        async with AsyncExitStack() as stack:
            stock = scratch_table(self.dsn, "stock", "item integer, available integer")
            self.observer = await stack.enter_async_context(stock)
            await stack.enter_async_context(scratch_table(self.dsn, "sales", columns))
            self.pool = await asyncpg.create_pool(self.dsn, **sizes, server_settings=named)
            stack.callback(self.pool.terminate)  # not close(), which waits for what is kept
            yield

    async def restock(self, available: int, error: Exception | None = None) -> None:
        """Begin anew."""
        await self.observer.execute("TRUNCATE labkit.stock, labkit.sales")
        stock = "INSERT INTO labkit.stock VALUES ($1, $2), ($3, 3)"
        await self.observer.execute(stock, ITEM, available, OTHER)
        await self.observer.execute(sale.RESERVE, 1, OTHER)
        await self.observer.execute(sale.RESERVE, NEIGHBOUR, ITEM)
        self.bank, self.others_sold = TheBank(error), False

    async def look(self) -> None:
        """Note what is in the tables, without what was there before."""
        self.left, sales = await self.seen_of(ITEM)
        self.sales = [each for each in sales if each[0] != NEIGHBOUR]
        theirs = [each for each in sales if each[0] == NEIGHBOUR]
        if theirs != [(NEIGHBOUR, "reserved")]:
            raise NotYet(
                f"item {ITEM} was reserved for customer {NEIGHBOUR}, too, and now that customer's "
                f"sales are {theirs}. Expected [({NEIGHBOUR}, 'reserved')], as before. Let each "
                f"statement name the customer."
            )
        if (other := await self.seen_of(OTHER)) != (3, [(1, "reserved")]):
            raise NotYet(
                f"item {ITEM} was for sale, and item {OTHER} has changed: {other[0]} are left, and "
                f"its sales are {other[1]}. Expected 3 and [(1, 'reserved')], as before. Let each "
                f"statement name the item."
            )

    async def seen_of(self, item: int) -> tuple[int, Sales]:
        """How many are left of an item, and its sales."""
        sales = [(customer, state) for customer, state in await self.observer.fetch(SALES, item)]
        return await self.observer.fetchval(LEFT, item), sales

    @property
    def borrowed(self) -> int:
        """Connections that are out of the pool at this moment."""
        return int(self.pool.get_size() - self.pool.get_idle_size())

    async def holds_nothing(self) -> None:
        """While the bank is asked: neither a lock nor a connection, of the pool or beside it."""
        borrowed = self.borrowed
        if not await self.observer.fetch(FREE_ROW):
            raise NotYet(
                f"while the bank was asked, the item's row was locked (connections of the "
                f"pool that were borrowed: {borrowed}). Whoever wants to write to this row waits "
                f"for the bank, too."
            )

        def beside() -> int:
            return sum(not connection.is_closed() for connection in self.opened)

        # It may just have asked something, or be closing a connection.
        await a_moment_until(lambda: not (self.borrowed or beside()))
        if self.borrowed:
            raise NotYet(
                f"while the bank was asked, no row was locked, but {self.borrowed} connection was "
                f"borrowed, and kept. If {SIZE} customers keep one each, the pool is empty: give "
                f"it back before you wait."
            )
        if own := beside():
            raise NotYet(
                f"while the bank was asked, no row was locked, but {own} connection beside the "
                f"pool was open. Use the pool's, which bounds how many there are, and give them "
                f"back before you wait."
            )

    async def watched(self, customer: int) -> object:
        """Call the answer, and note each connection that is opened meanwhile, by whomever."""
        with opened() as self.opened:
            return await self.answer(self.pool, self.bank, ITEM, customer)

    def go_on(self, sale: Call | None) -> Call:
        """Let the bank answer a sale, or one that begins now."""
        self.bank.may_answer.set()
        return sale or asyncio.ensure_future(self.watched(1))

    async def when_the_pool_is_empty(self) -> object:
        """Sell while others have borrowed every connection, for a moment. What comes of it."""
        async with AsyncExitStack() as stack:
            for _ in range(SIZE):
                await stack.enter_async_context(self.pool.acquire())
            call = self.go_on(None)
            await asyncio.wait([call], timeout=0.2)  # for those who give up
        await asyncio.wait([call])
        return end_of(call)

    async def stop(self, table: str, sale: Call | None = None) -> None:
        """Hold a sale, or one that begins now, where it wants to write to a table, and look."""
        async with held(self.observer, table, partial(self.go_on, sale)) as call:
            await asyncio.wait([call], timeout=0.3)  # for those who give up
            await self.look()
            self.half_way.append((self.left, self.sales))
        await asyncio.wait([call])
        if end_of(call) is False:
            raise NotYet(
                "3 were left, but somebody had locked the table for a moment, and the customer was "
                "told that none was left. Wait for the lock, or try again."
            )

    async def cancel_at_the_sales(self, sale: Call) -> None:
        """Let the bank take the money, and cancel the sale where it wants to write that down."""
        async with held(self.observer, "labkit.sales", partial(self.go_on, sale)) as call:
            call.cancel()
            # Its statement is broken off by a message of its own, which takes a moment.
            await asyncio.wait([call], timeout=1)

    async def stop_and_sell_one(self, sale: Call | None = None) -> bool:
        """Hold it where it wants to write to the stock, and sell one, unless the row is locked."""
        async with held(self.observer, "labkit.stock", partial(self.go_on, sale)) as call:
            self.others_sold = bool(await self.observer.fetch(FREE_ROW))
            if self.others_sold:
                await self.observer.execute(SELL_ONE)
        await asyncio.wait([call])
        await self.look()
        return self.others_sold

    async def sell(self, customer: int, at_the_bank: Meanwhile | None = None) -> object:
        """Call the answer, and do something while it asks the bank. Its error is a result, too."""
        sale = asyncio.ensure_future(self.watched(customer))
        asked = asyncio.ensure_future(self.bank.is_asked.wait())
        await asyncio.wait([sale, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        try:
            if self.bank.at_once and at_the_bank:
                await at_the_bank(sale)
        finally:  # what it locks is let go before the tables are dropped
            self.bank.may_answer.set()
            await asyncio.gather(sale, return_exceptions=True)
        if sale.cancelled():
            await a_moment_until(lambda: not self.borrowed)
        await self.look()
        if borrowed := self.borrowed:
            await a_moment_until(lambda: not self.borrowed)
            late = "Give back what you borrow."
            if not self.borrowed:
                late = "It came back later: something of yours was still at work. Wait for it."
            raise NotYet(
                f"the sale is over, and {borrowed} of the pool's {SIZE} connections had not come "
                f"back. {late}"
            )
        return end_of(sale)
