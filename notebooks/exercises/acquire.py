"""Exercise of notebook 03: a booking that borrows its own connection. Meant to be read.

An answer is judged by what it does: what it returns and writes, how many connections it holds at
once, alone and in a crowd, and whether it gives them back.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
from instruments.scratch_table import scratch_table
from legacy import booking

import labkit as lab
from labkit.exercises import PATIENCE, NotYet

HINTS = [
    "What belongs together? The three statements of one booking. What does not? Two bookings. So "
    "each booking needs a connection of its own, and one is enough for it.",
    "`async with pool.acquire() as connection:` borrows one and gives it back, also when the block "
    "raises or is cancelled. The transaction goes inside, and every statement asks `connection`, "
    "never `pool`.",
    "Take the body of `booking.book`, and put `async with pool.acquire() as connection, "
    "connection.transaction():` where it opens its transaction. `try` and `except` stay outside, "
    "so that the exception passes through the transaction and rolls it back.",
]

SOLUTION = """
from legacy import booking


async def book(pool, order):
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(booking.RESERVE, order)
            if await connection.fetchval(booking.AMOUNT, order) > booking.LIMIT:
                raise booking.TooDear
            await connection.execute(booking.CHARGE, order)
    except booking.TooDear:
        return False
    return True
"""

WHY = (
    "each booking has a connection, and so a transaction, that nobody else can write into or roll "
    "back, and as many bookings run at once as the pool has connections. The unit is the "
    "operation, not the statement: for a single statement `pool.fetchval` is shorter, for several "
    "that belong together it is wrong. When not to: where an operation waits for something slow "
    "that is not PostgreSQL, do that first and borrow afterwards, or it pins a connection."
)

Answer = Callable[[asyncpg.Pool, int], Awaitable[bool]]

SIZE, CROWD = 5, 20


def check(answer: Answer) -> lab.Verdict:
    """Two bookings alone, then twenty at once under lookups; watch the pool and the table."""
    bench = Bench(lab.database(), answer)
    return bench.judge(lab.measure(bench.your_bookings))


def chart(run: lab.Run) -> None:
    """The pool's connections, in the crowd."""
    most = run.gauges["in use"].max()
    lab.gauges(run, title=f"{CROWD} bookings at once, and at most {most:.0f} connections in use")


class Bench:
    """A pool and a table for an answer, and what was seen of it."""

    def __init__(self, dsn: str, answer: Answer) -> None:
        self.dsn, self.answer = dsn, answer
        self.pool: asyncpg.Pool
        self.expected: dict[int, bool] = {}
        self.returned: dict[int, object] = {}
        self.rows: dict[int, list[str]] = {}
        self.most_held = self.held_alone = 0

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator[asyncpg.Connection]:
        """The table and the pool, for as long as the block runs."""
        async with scratch_table(self.dsn, "bookings", "order_id integer, step text") as keeper:
            amounts = f"SELECT id, amount FROM labkit.orders WHERE id <= {CROWD} ORDER BY id"
            limit = booking.LIMIT
            self.expected = {order: cost <= limit for order, cost in await keeper.fetch(amounts)}
            self.most_held = 0
            self.pool = await asyncpg.create_pool(
                self.dsn, min_size=SIZE, max_size=SIZE, setup=self.borrowed
            )
            try:
                yield keeper
            finally:
                self.pool.terminate()  # not close(), which waits for what never comes back

    async def borrowed(self, connection: object) -> None:
        """The pool's setup: called at each acquire, just before the connection counts as held."""
        self.most_held = max(self.most_held, self.held + 1)

    @property
    def held(self) -> int:
        """Connections that are out of the pool at this moment."""
        return int(self.pool.get_size() - self.pool.get_idle_size())

    async def book(self, order: int) -> None:
        """Call the answer."""
        self.returned[order] = await self.answer(self.pool, order)

    async def alone(self) -> None:
        """One that is to be booked and one that is to be refused, with nobody else about."""
        async with self.set_up() as keeper:
            for wanted in (True, False):
                order = next(o for o, booked in self.expected.items() if booked is wanted)
                what = f"order {order} alone"
                try:
                    await self.book(order)
                except Exception as error:
                    raise lab.LabError(f"{what}: {type(error).__name__}: {error}") from None
                if self.returned[order] is not wanted:
                    raise NotYet(f"{what} should be {wanted}, and was {self.returned[order]!r}.")
                if self.held:
                    raise NotYet(
                        f"{what} returned, and {self.held} of the pool's {SIZE} connections had "
                        f"not come back. After {SIZE} such calls the service stands still."
                    )
                steps = [step for _, step in await keeper.fetch("TABLE labkit.bookings")]
                await keeper.execute("TRUNCATE labkit.bookings")
                if steps != (expected := ["reserved", "charged"] * wanted):
                    raise NotYet(
                        f"{what} returned {wanted} and left the steps {steps}. Expected "
                        f"{expected}: both or none. Statements that belong together need the "
                        f"same connection, and a transaction on it."
                    )
            self.held_alone = self.most_held

    async def your_bookings(self, load: lab.Load) -> None:
        """Alone, then twenty at once, while the service answers lookups from another pool."""
        await self.alone()
        async with self.set_up() as keeper, asyncpg.create_pool(self.dsn, min_size=1) as others:
            orders = iter(self.expected)
            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            load.offer("lookup", lambda: others.fetchval(lookup), rate=100)
            load.offer("booking", lambda: self.book(next(orders)), rate=1, burst=CROWD)
            load.gauge("in use", lambda: self.held)
            await load.run(seconds=1)
            for order, step in await keeper.fetch("TABLE labkit.bookings"):
                self.rows.setdefault(order, []).append(step)

    def judge(self, run: lab.Run) -> lab.Verdict:
        """What the crowd showed."""
        bookings = run.requests[run.requests.offer == "booking"]
        errors = bookings.error.dropna()
        hung = errors[errors.str.startswith(NotYet.__name__)]
        if len(hung):
            twice = (
                f" A booking alone held {self.held_alone} at once: so in a crowd each holds one, "
                f"and waits for another that never comes back."
            )
            raise NotYet(
                f"{len(hung)} of {CROWD} bookings at once had not returned after {PATIENCE:g} s, "
                f"with {self.most_held} of the pool's {SIZE} connections in use."
                + twice
                * (self.held_alone > 1)
            )
        shared = errors[errors.str.startswith(("InterfaceError", "NoActiveSQLTransaction"))]
        if len(shared):
            raise NotYet(
                f"alone it works, but of {CROWD} bookings at once {len(errors)} failed: "
                f"{shared.iloc[0]}. Somebody else was using the same connection."
            )
        if len(errors):
            raise lab.LabError(f"{len(errors)} of {CROWD} at once: {errors.iloc[0]}")
        if self.returned != self.expected:
            wrong = [o for o in self.expected if self.returned[o] is not self.expected[o]]
            raise NotYet(f"of {CROWD} at once, the answers for orders {wrong} were wrong.")
        booked = {o: ["reserved", "charged"] for o, good in self.expected.items() if good}
        if self.rows != booked:
            wrong = sorted(o for o in self.expected if self.rows.get(o) != booked.get(o))
            raise NotYet(
                f"of {CROWD} at once, orders {wrong} returned the right answer and left the wrong "
                f"rows: {self.rows.get(wrong[0], [])} for order {wrong[0]}."
            )
        took = f"{CROWD} bookings at once took {run.latency('booking').max:.0f} ms"
        if self.most_held < SIZE:
            raise NotYet(
                f"all right, but no more than {self.most_held} of the pool's {SIZE} connections "
                f"were ever in use at once. {took}; something makes them wait for each other."
            )
        return lab.Verdict(
            "pass",
            f"{took}, all right, on all {SIZE} connections, and all came back. "
            f"The lookups meanwhile: {run.latency()}.",
        )
