"""Exercise of notebook 07: sell without a transaction around the bank. Meant to be read.

An answer is judged by what can be seen from outside: whether the row is locked and a connection
is borrowed while the bank is asked, and what is in the tables after everything that can go wrong.
The bank answers when that was looked at, and not after a time: so a late machine changes nothing.
"""

import asyncio
from functools import partial

import asyncpg
from exercises.instruments.crowd import waited_at_a_line
from exercises.instruments.shop import CUSTOMERS, ITEM, SIZE, Sales, Sell, Shop, UnforeseenError
from legacy.sale import Declined

import labkit as lab
from labkit.exercises import NotYet, by_the_clock, database

HINTS = [
    "What has to happen together? Taking the item and reserving it for the customer. What has to "
    "wait for the bank? Marking it as paid. So there are two transactions, and the bank between "
    "them, where nothing is borrowed.",
    "A transaction rolled everything back by itself when the bank refused. Once the reservation is "
    "committed nobody does that for you: undo it with `GIVE_BACK` and `CANCEL`, together, and then "
    "`raise`, so that the caller learns why.",
    "Which errors? All of them: the card is declined, the bank cannot be reached, the customer has "
    "gone away and the request is cancelled. `CancelledError` is no `Exception`: catch "
    "`BaseException`, undo, and raise it again. `PAY` comes after that: what the bank has taken "
    "money for is no longer undone.",
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

WHY = """others see the reservation, so neither lock nor connection is needed while the bank thinks.
What the transaction undid you undo by hand. If the process dies, or the request is cancelled, in
between, the reservation stays: a service gives it an end. A real bank may have charged though its
answer was lost: send an idempotency key, ask before you undo.
When not to do it: if the await in the middle is PostgreSQL's."""

STOCK = 12
ALTER = "ALTER TABLE labkit.sales"
NOTED = (
    "SELECT count(*) FROM labkit.sales WHERE item = $1 AND customer = 1 AND state <> 'cancelled'"
)


def check(answer: Sell) -> lab.Verdict:
    """Sell alone, in several ways, then to a crowd; look at locks, connections and tables."""
    bench = Bench(database(), answer)
    return bench.judge(lab.measure(bench.your_sales))


def chart(run: lab.Run) -> None:
    """Those who wrote to the same row meanwhile."""
    lab.timeline(run, offer="other writer")


async def _cancel(sale: asyncio.Future[object]) -> None:
    sale.cancel()
    await asyncio.wait([sale])


class Bench(Shop):
    """What an answer has to stand, and the verdict on it."""

    def __init__(self, dsn: str, answer: Sell) -> None:
        super().__init__(dsn, answer)
        self.sold: dict[int, object] = {}

    async def alone(self) -> None:
        """Everything that can become of a sale, with nobody else about."""
        await self.restock(3)
        got = await self.sell(1, self.what_others_can_do)
        if isinstance(got, Exception):
            raise lab.LabError(f"a good customer: {type(got).__name__}: {got}")
        if not self.bank.asked:
            raise NotYet("1 good customer came, and the bank was asked 0 times.")
        self.expect(got, True, 2, [(1, "paid")], "a good customer")

        await self.restock(0)
        got = await self.sell(1)
        if self.bank.asked:
            raise NotYet("0 were left, and the bank was asked for the money all the same.")
        self.expect(got, False, 0, [], "none was left")

        unreachable = ConnectionError("the bank cannot be reached")
        for error in (Declined("no credit"), unreachable, UnforeseenError("503")):
            await self.restock(3, error)
            self.expect(await self.sell(1), error, 3, [], f"the bank raised {error!r}")
            self.bank.error = None  # now it pays, and nothing that was left may be in the way
            again = f"the bank had raised {error!r}, and the customer came again and could pay"
            self.expect(await self.sell(1), True, 2, [(1, "paid")], again)

        await self.restock(3)
        await self.the_customer_goes_away()
        await self.it_is_paid_for()

        await self.restock(3)
        await self.sell(1)
        got = await self.sell(1)
        seen = f"{self.left} of 3 are left, and the sales are {self.sales}"
        if len(self.bank.asked) > 1:
            raise NotYet(
                f"customer 1 had bought one and wanted another, which the database refuses to "
                f"reserve, and the bank was asked for the money all the same; afterwards {seen}."
            )
        refused = isinstance(got, asyncpg.UniqueViolationError)
        if not refused or (self.left, self.sales) != (2, [(1, "paid")]):
            raise NotYet(
                f"customer 1 had bought one and wanted another, and the database refused that "
                f"reservation; afterwards {seen}, and your function ended with {got!r}. Expected "
                f"2, [(1, 'paid')] and the database's error. Taking and reserving belong into one "
                f"transaction, and a reservation that failed needs no undoing."
            )
        await self.is_whole_at_any_time()
        await self.others_sell_too()
        await self.restock(3)
        if await self.when_the_pool_is_empty() is False:
            raise NotYet(
                "3 were left, but all connections of the pool were borrowed for a moment, and the "
                "customer was told that none was left. Wait for a connection."
            )

    async def is_whole_at_any_time(self) -> None:
        """Stop a sale, and its undoing, where it wants to write to a table, and look at both."""
        for table in ("labkit.stock", "labkit.sales"):
            await self.restock(3)
            await self.stop(table)
            await self.restock(3, Declined("no credit"))
            await self.sell(1, partial(self.stop, table))
        for left, sales in self.half_way:
            if left + len(sales) != 3:
                raise NotYet(
                    f"in the middle of your function others could see that {left} of 3 were left "
                    f"and the sales were {sales}. Taking and reserving belong into one "
                    f"transaction, and so do giving back and cancelling."
                )

    async def others_sell_too(self) -> None:
        """Where a sale, or its undoing, wants to write to the stock, somebody else sells one."""
        await self.restock(1)
        if await self.stop_and_sell_one() and (self.left, self.sales) != (0, []):
            raise NotYet(
                f"somebody else sold the last one just before your function could take it; "
                f"afterwards {self.left} are left, and the sales are {self.sales}. Look and take "
                f"in one statement, or lock the row when you look. (A lock of your own, as "
                f"asyncio's, stops nobody in another process.)"
            )
        await self.restock(3, Declined("no credit"))
        await self.sell(1, self.stop_and_sell_one)
        if self.others_sold and self.left != 2:
            raise NotYet(
                f"of 3, somebody else sold 1 just before your function gave its own back; "
                f"afterwards {self.left} are left, and not 2. Let the database add 1: what your "
                f"function has read before is out of date."
            )

    async def what_others_can_do(self, _sale: object) -> None:
        """While the bank is asked."""
        await self.holds_nothing()
        await self.look()
        if self.sales == [(1, "paid")]:
            raise NotYet("1 sale was marked as paid before the bank had answered.")
        if (self.left, self.sales) == (2, []):
            raise NotYet(
                "while the bank was asked, 1 item had been taken, and customer 1 had no sale of it "
                "in the state 'reserved'. Others know a reservation by this name."
            )

    async def the_customer_goes_away(self) -> None:
        """The request is cancelled while the bank is asked."""
        got = await self.sell(1, _cancel)
        tables = f"{self.left} of 3 are left, and the sales are {self.sales}"
        if self.bank.charged:
            raise NotYet(
                f"the request was cancelled while the bank was asked, and the bank took the money "
                f"all the same: the question to the bank has to be cancelled, too. Afterwards "
                f"{tables}."
            )
        if (self.left, self.sales) != (3, []):
            raise NotYet(
                f"the request was cancelled while the bank was asked: {tables}. No money was "
                f"taken, so undo it then, too. (`except Exception` catches no CancelledError.)"
            )
        if not isinstance(got, asyncio.CancelledError):
            raise NotYet(
                "the request was cancelled, all was undone, and the CancelledError was swallowed: "
                "raise it again, or whoever cancelled takes it for done."
            )

    async def it_is_paid_for(self) -> None:
        """The bank has the money; where that is to be noted, the sale is cancelled, or fails."""
        await self.restock(3)
        got = await self.sell(1, self.cancel_at_the_sales)
        await self.stays_sold(
            got, "the request was cancelled while the sale was to be marked as paid"
        )
        await self.restock(3)
        await self.observer.execute(f"{ALTER} ADD CONSTRAINT unpaid CHECK (state <> 'paid')")
        got = await self.sell(1)
        await self.observer.execute(f"{ALTER} DROP CONSTRAINT unpaid")
        await self.stays_sold(got, "the database refused to mark the sale as paid")

    async def stays_sold(self, got: object, what: str) -> None:
        """Whatever went wrong after the bank's answer: reserved or paid, it is the customer's."""
        await self.look()
        noted = await self.observer.fetchval(NOTED, ITEM)
        if self.bank.charged and (self.left, noted) != (2, 1):
            raise NotYet(
                f"the bank had taken the money, and then {what}: {self.left} of 3 are left, and "
                f"{noted} sale is noted. Expected 2 and 1. Undo what the bank refused, and nothing "
                f"that is paid for: mark it as paid outside of the `try` that undoes."
            )
        if got is True and self.sales != [(1, "paid")]:
            raise NotYet(
                f"the bank had taken the money, and then {what}: your function returned True, and "
                f"the sales are {self.sales}. Let that error through, so that the caller knows."
            )

    def expect(self, got: object, wanted: object, left: int, sales: Sales, what: str) -> None:
        """Result, stock and sales have to be as they should be."""
        if got is not wanted:
            other = ", which is another one. Let the bank's own through"
            other = other if f"{got!r}" == f"{wanted!r}" else ""
            raise NotYet(
                f"{what}: expected {wanted!r}, and your function ended with {got!r}{other}."
            )
        if (self.left, self.sales) != (left, sales):
            raise NotYet(
                f"{what}: {self.left} are left, and the sales are {self.sales}. Expected {left} "
                f"and {sales}."
            )

    async def your_sales(self, load: lab.Load) -> None:
        """Alone; then twenty customers for twelve items, while others write to the same row."""
        async with self.set_up():
            await self.alone()
        async with self.set_up(), asyncpg.create_pool(self.dsn, min_size=2) as others:
            await self.restock(STOCK)
            customers = iter(range(1, CUSTOMERS + 1))

            async def sale() -> None:
                customer = next(customers)
                try:
                    self.sold[customer] = await self.answer(self.pool, self.bank, ITEM, customer)
                except Exception as error:
                    self.sold[customer] = error
                self.bank.gone += 1
                self.bank.count()

            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            # An inventory, for example; of one row, as two can be locked in either order.
            count = f"UPDATE labkit.stock SET item = item WHERE item = {ITEM}"
            load.offer("lookup", lambda: others.fetchval(lookup), rate=100)
            load.offer("other writer", lambda: others.execute(count), rate=20)
            load.offer("sale", sale, rate=1, burst=CUSTOMERS)
            asyncio.get_running_loop().call_later(2, self.bank.may_answer.set)
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
        if self.left != STOCK - len(paid) or self.left < 0 or len(self.sales) != len(paid):
            raise NotYet(
                f"{len(paid)} of {STOCK} were sold, and {self.left} are left; {len(self.sales)} "
                f"sales are on record."
            )
        refused = sum(got is False for got in self.sold.values())
        if refused and (taken := len(set(self.bank.asked))) < STOCK:
            raise NotYet(
                f"{refused} customers were told that none was left, and only {taken} of {STOCK} "
                f"had been taken. A lock, a connection or a race that was lost says nothing about "
                f"the stock: wait, or try again."
            )
        waited_at_a_line(run)
        if self.bank.most_at_once <= SIZE:
            raise by_the_clock(
                run,
                500,
                f"no more than {self.bank.most_at_once} of {CUSTOMERS} customers were at the bank "
                f"at once, with {STOCK} items to sell: they waited for each other.",
            )
        return lab.Verdict(
            "pass",
            f"{len(paid)} sold, {len(failed)} declined, {self.left} left; "
            f"{self.bank.most_at_once} customers were at the bank at once, on a pool of {SIZE}. "
            f"Others who wrote to the same row meanwhile: {run.latency('other writer')}.",
        )
