"""Exercise of notebook 07: sell without a transaction around the bank. Meant to be read.

An answer is judged by what can be seen from outside: whether the row is locked and a connection
is held while the bank is asked, and what is in the tables after everything that can go wrong.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
from instruments.scratch_table import scratch_table
from legacy.sale import Bank, Declined

import labkit as lab
from labkit.exercises import NotYet

HINTS = [
    "What has to happen together? Taking the item and reserving it for the customer. What has to "
    "wait for the bank? Marking it as paid. So there are two transactions, and the bank between "
    "them, where nothing is borrowed.",
    "A transaction rolled everything back by itself when the bank refused. Once the reservation is "
    "committed nobody does that for you: undo it with `GIVE_BACK` and `CANCEL`, together, and then "
    "`raise`, so that the caller learns why.",
    "Which errors? All of them: the card is declined, the bank cannot be reached, the customer has "
    "gone away and the request is cancelled. `CancelledError` is no `Exception`: catch "
    "`BaseException`, undo, and raise it again.",
]

SOLUTION = """
async def sell(pool, bank, item, customer):
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(sale.TAKE, item) is None:
            return False
        await connection.execute(sale.RESERVE, customer, item)
    try:
        await bank.charge(customer)
    except BaseException:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(sale.GIVE_BACK, item)
            await connection.execute(sale.CANCEL, customer, item)
        raise
    await pool.execute(sale.PAY, customer, item)
    return True
"""

WHY = (
    "the reservation is a promise that others can see, and it holds without a lock. So the row and "
    "the connection are free while the bank thinks. What the transaction did by itself you now do "
    "by hand, and one thing it did you cannot: if the process dies between the two transactions, "
    "the reservation stays. So a real service gives it an end (`reserved_until`), lets something "
    "sweep up what has expired, and sends the bank a key of its own with each charge, so that "
    "asking twice does not charge twice. When not to do it: where the await in the middle is quick "
    "and is PostgreSQL's own, one transaction is simpler and safer."
)

Sell = Callable[[asyncpg.Pool, Bank, int, int], Awaitable[bool]]

SIZE = 5
ITEM, STOCK = 7, 12
CUSTOMERS = 20
SLOW = 0.2  # s; the bank

LEFT = "SELECT available FROM labkit.stock"
SALES = """
    SELECT customer, state FROM labkit.sales
    WHERE state IN ('reserved', 'paid') ORDER BY customer
"""
# Finds the row if nobody has locked it.
FREE_ROW = "SELECT FROM labkit.stock FOR UPDATE SKIP LOCKED"


class TheBank:
    """Takes its time, and notes what it saw meanwhile."""

    def __init__(self, bench: "Bench", error: BaseException | None = None) -> None:
        self.bench, self.error = bench, error
        self.asked: list[int] = []
        self.charged: list[int] = []
        self.at_once = self.most_at_once = 0
        self.answering = asyncio.Event()

    async def charge(self, customer: int) -> None:
        """Every fourth customer's card is declined."""
        self.asked.append(customer)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.answering.set()
        try:
            await asyncio.sleep(SLOW)
        finally:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        if customer % 4 == 0:
            raise Declined(f"customer {customer}")
        self.charged.append(customer)


def check(answer: Sell) -> lab.Verdict:
    """Sell alone, in six ways, then to a crowd; look at locks, connections and tables."""
    bench = Bench(lab.database(), answer)
    return bench.judge(lab.measure(bench.your_sales))


def chart(run: lab.Run) -> None:
    """Those who wrote to the same row meanwhile."""
    lab.timeline(run, offer="other writer")


class Bench:
    """A pool, two tables and a bank for an answer, and what was seen of it."""

    def __init__(self, dsn: str, answer: Sell) -> None:
        self.dsn, self.answer = dsn, answer
        self.pool: asyncpg.Pool
        self.observer: asyncpg.Connection
        self.bank: TheBank
        self.sold: dict[int, object] = {}
        self.left = 0
        self.sales: list[tuple[int, str]] = []

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator[None]:
        """The tables and the pool, for as long as the block runs."""
        named = {"application_name": f"labkit exercise {os.getpid()}"}
        sizes = {"min_size": SIZE, "max_size": SIZE}
        columns = "customer integer CHECK (customer > 0), item integer, state text"
        async with AsyncExitStack() as stack:
            stock = scratch_table(self.dsn, "stock", "item integer, available integer")
            self.observer = await stack.enter_async_context(stock)
            await stack.enter_async_context(scratch_table(self.dsn, "sales", columns))
            self.pool = await asyncpg.create_pool(self.dsn, **sizes, server_settings=named)
            stack.callback(self.pool.terminate)  # not close(), which waits for what is kept
            yield

    async def restock(self, available: int, error: BaseException | None = None) -> None:
        """Begin anew."""
        await self.observer.execute("TRUNCATE labkit.stock, labkit.sales")
        await self.observer.execute("INSERT INTO labkit.stock VALUES ($1, $2)", ITEM, available)
        self.bank = TheBank(self, error)

    async def look(self) -> None:
        """Note what is in the tables."""
        self.left = await self.observer.fetchval(LEFT)
        self.sales = [(customer, state) for customer, state in await self.observer.fetch(SALES)]

    @property
    def held(self) -> int:
        """Connections that are out of the pool at this moment."""
        return int(self.pool.get_size() - self.pool.get_idle_size())

    async def sell(self, customer: int) -> object:
        """Call the answer; its error is a result, too."""
        task = asyncio.ensure_future(self.answer(self.pool, self.bank, ITEM, customer))
        await asyncio.wait([task])
        return asyncio.CancelledError() if task.cancelled() else task.exception() or task.result()

    async def alone(self) -> None:
        """Everything that can become of a sale, with nobody else about."""
        async with self.set_up():
            for scene in (
                self.one_is_sold,
                self.none_is_left,
                self.the_bank_refuses,
                self.the_customer_goes_away,
                self.the_database_refuses,
            ):
                await scene()
                if self.held:
                    raise NotYet(
                        f"the sale is over, and {self.held} of the pool's {SIZE} connections had "
                        f"not come back."
                    )

    async def one_is_sold(self) -> None:
        """A good customer: and what others can do while the bank is asked."""
        await self.restock(3)
        sale = asyncio.ensure_future(self.sell(1))
        asked = asyncio.ensure_future(self.bank.answering.wait())
        await asyncio.wait([sale, asked], return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        free, held = await self.observer.fetch(FREE_ROW), self.held
        await self.look()
        state_meanwhile = dict(self.sales).get(1)
        in_time = not sale.done()
        got = await sale
        if isinstance(got, Exception):
            raise lab.LabError(f"a good customer: {type(got).__name__}: {got}")
        if not self.bank.asked:
            raise NotYet("1 good customer came, and the bank was asked 0 times.")
        if in_time and not free:
            raise NotYet(
                f"while the bank was asked, the item's row was locked, and {held} connection was "
                f"held. Whoever wants to write to this row waits for the bank, too."
            )
        if in_time and held:
            raise NotYet(
                f"while the bank was asked, no row was locked, but {held} connection was held. "
                f"{SIZE} slow customers, and the pool is empty: give it back before you wait."
            )
        if state_meanwhile == "paid":
            raise NotYet("1 sale was marked as paid before the bank had answered.")
        await self.expect(got, True, 2, [(1, "paid")], "a good customer")

    async def none_is_left(self) -> None:
        """Nothing to sell, so there is nothing to pay."""
        await self.restock(0)
        got = await self.sell(1)
        if self.bank.asked:
            raise NotYet("0 were left, and the bank was asked for the money all the same.")
        await self.expect(got, False, 0, [], "none was left")

    async def the_bank_refuses(self) -> None:
        """By an answer, and by not being there."""
        for error in (Declined("no credit"), ConnectionError("the bank cannot be reached")):
            await self.restock(3, error)
            got = await self.sell(1)
            await self.expect(got, error, 3, [], f"the bank raised {error!r}")

    async def the_customer_goes_away(self) -> None:
        """The request is cancelled while the bank is asked."""
        await self.restock(3)
        task = asyncio.ensure_future(self.answer(self.pool, self.bank, ITEM, 1))
        asked = asyncio.ensure_future(self.bank.answering.wait())
        await asyncio.wait([task, asked], return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        asked.cancel()
        await asyncio.wait([task])
        await self.look()
        if (self.left, self.sales) != (3, []):
            raise NotYet(
                f"the request was cancelled while the bank was asked: {self.left} of 3 are left, "
                f"and the sales are {self.sales}. No money was taken. A CancelledError is no "
                f"Exception."
            )
        if not task.cancelled():
            raise NotYet(
                "the request was cancelled, all was undone, and the CancelledError was swallowed: "
                "raise it again, or whoever cancelled takes it for done."
            )

    async def the_database_refuses(self) -> None:
        """The second statement fails; was the first one in the same transaction?"""
        await self.restock(3)
        got = await self.sell(-1)
        if self.bank.asked:
            raise NotYet(
                "the database refuses to reserve anything for customer -1, and the bank had been "
                "asked for the money before."
            )
        await self.look()
        if self.left != 3 or not isinstance(got, asyncpg.CheckViolationError):
            raise NotYet(
                f"the database refused the reservation of customer -1, and afterwards {self.left} "
                f"of 3 are left; your function ended with {got!r}. Taking and reserving belong "
                f"into one transaction."
            )

    async def expect(
        self, got: object, wanted: object, left: int, sales: list[tuple[int, str]], what: str
    ) -> None:
        """Result, stock and sales have to be as they should be."""
        await self.look()
        if got is not wanted:
            raise NotYet(f"{what}: expected {wanted!r}, and your function ended with {got!r}.")
        if (self.left, self.sales) != (left, sales):
            raise NotYet(
                f"{what}: {self.left} are left, and the sales are {self.sales}. Expected {left} "
                f"and {sales}."
            )

    async def your_sales(self, load: lab.Load) -> None:
        """Alone; then twenty customers for twelve items, while others write to the same row."""
        await self.alone()
        async with self.set_up(), asyncpg.create_pool(self.dsn, min_size=2) as others:
            await self.restock(STOCK)
            customers = iter(range(1, CUSTOMERS + 1))

            async def sale() -> None:
                customer = next(customers)
                self.sold[customer] = await self.sell(customer)

            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            count = "UPDATE labkit.stock SET item = item"  # an inventory, for example
            load.offer("lookup", lambda: others.fetchval(lookup), rate=100)
            load.offer("other writer", lambda: others.execute(count), rate=20)
            load.offer("sale", sale, rate=1, burst=CUSTOMERS)
            await load.run(seconds=1)
            await self.look()

    def judge(self, run: lab.Run) -> lab.Verdict:
        """What the crowd showed."""
        failed = {c: e for c, e in self.sold.items() if isinstance(e, Exception)}
        strange = [error for error in failed.values() if not isinstance(error, Declined)]
        if strange:
            raise lab.LabError(f"{len(strange)} of {CUSTOMERS} sales at once: {strange[0]!r}")
        charged, paid = sorted(self.bank.charged), [c for c, state in self.sales if state == "paid"]
        sold = sorted(customer for customer, got in self.sold.items() if got is True)
        if charged != paid or charged != sold:
            raise NotYet(
                f"of {CUSTOMERS} customers at once for {STOCK} items, {len(charged)} were charged, "
                f"{len(paid)} have a paid sale, and {len(sold)} were told so. The item has to be "
                f"theirs before the bank is asked."
            )
        if self.left != STOCK - len(paid) or len(self.sales) != len(paid):
            raise NotYet(
                f"{len(paid)} of {STOCK} were sold, and {self.left} are left; {len(self.sales)} "
                f"sales are on record."
            )
        if self.bank.most_at_once <= SIZE:
            raise NotYet(
                f"{self.bank.most_at_once} customers at most were at the bank at once, with "
                f"{STOCK} items to sell: they waited for each other."
            )
        return lab.Verdict(
            "pass",
            f"{len(paid)} sold, {len(failed)} declined, {self.left} left; "
            f"{self.bank.most_at_once} customers were at the bank at once, on a pool of {SIZE}. "
            f"Others who wrote to the same row meanwhile: {run.latency('other writer')}.",
        )
