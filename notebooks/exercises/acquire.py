"""Exercise of notebook 03: a booking that borrows its own connection. Meant to be read.

An answer is judged by what it does: what it returns and writes, how many connections it holds at
once, alone and in a crowd, and whether it gives them back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
from exercises.instruments.crowd import waited_at_a_line
from exercises.instruments.meanwhile import MOMENT, a_moment_until, held, opened, swallowed
from instruments.scratch_table import scratch_table
from legacy import booking

import labkit as lab
from labkit.exercises import PATIENCE, NotYet, by_the_clock, database

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

WHY = """each booking has a connection, and so a transaction, that nobody else can write into or
roll back. As many bookings run at once as the pool has connections.
The unit is the operation, not the statement. For a single statement, `pool.fetchval` is shorter.
When not to: do not borrow before you wait for something slow that is not PostgreSQL."""

Answer = Callable[[asyncpg.Pool, int], Awaitable[bool]]

SIZE, CROWD = 5, 20
DEAREST, TOO_DEAR = 13_100, 8_469  # these orders cost the limit, and a cent more
BOTH = ["reserved", "charged"]  # steps
# The steps stand in this order, whichever was written first: within a transaction it is all one.
BY_STEP = "ORDER BY step DESC"
CLEAR = f"WITH gone AS (DELETE FROM labkit.bookings RETURNING step) TABLE gone {BY_STEP}"
WRITERS = """
    SELECT count(*) FROM pg_locks
    WHERE relation = 'labkit.bookings'::regclass AND mode = 'RowExclusiveLock' AND NOT granted"""
TOGETHER = "Statements that belong together need the same connection, and a transaction on it."
IS_DONE = "Is each statement executed once, awaited, and committed?"
IS_UNDONE = (
    "What is written in a transaction is undone if an exception leaves its block; whoever leaves "
    "it by `return` commits."
)


def check(answer: Answer) -> lab.Verdict:
    """Two bookings alone, then twenty at once under lookups; watch the pool and the table."""
    bench = Bench(database(), answer)
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
        self.most_borrowed = self.borrowed_alone = self.most_writers = 0
        self.inside = self.most_inside = 0  # calls of the answer
        self.opened: list[asyncpg.Connection] = []  # in the crowd

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator[asyncpg.Connection]:
        """The table and the pool, for as long as the block runs."""
        async with scratch_table(self.dsn, "bookings", "order_id integer, step text") as keeper:
            which = f"id < {CROWD - 1} OR id IN ({DEAREST}, {TOO_DEAR})"
            amounts = f"SELECT id, amount FROM labkit.orders WHERE {which} ORDER BY id"
            limit = booking.LIMIT
            self.expected = {order: cost <= limit for order, cost in await keeper.fetch(amounts)}
            self.most_borrowed = 0
            self.pool = await asyncpg.create_pool(
                self.dsn, min_size=SIZE, max_size=SIZE, setup=self.on_acquire
            )
            try:
                yield keeper
            finally:
                self.pool.terminate()  # not close(), which waits for what never comes back

    async def on_acquire(self, connection: object) -> None:
        """The pool's setup: called at each acquire, just before this connection is counted."""
        self.most_borrowed = max(self.most_borrowed, self.borrowed + 1)

    @property
    def borrowed(self) -> int:
        """Connections that are out of the pool at this moment."""
        return int(self.pool.get_size() - self.pool.get_idle_size())

    async def book(self, order: int) -> object:
        """Call the answer."""
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            self.returned[order] = await self.answer(self.pool, order)
            return self.returned[order]
        finally:
            self.inside -= 1

    def begin(self, order: int) -> asyncio.Future[object]:
        """Let the answer run, and go on."""
        return asyncio.ensure_future(self.book(order))

    async def all_came_back(self, when: str) -> None:
        """No connection may stay borrowed."""
        await a_moment_until(lambda: not self.borrowed)
        if self.borrowed:
            raise NotYet(
                f"{when}, and {self.borrowed} of the pool's {SIZE} connections had not come back "
                f"after {MOMENT:g} s. If each call loses some, the service soon stands still."
            )

    async def alone(self) -> None:
        """Booked, refused, cancelled in the middle, failing half way; with nobody else about."""
        async with self.set_up() as keeper:
            good, refused = (
                next(o for o, booked in self.expected.items() if booked is wanted)
                for wanted in (True, False)
            )
            for order, wanted, steps in ((good, True, BOTH), (refused, False, [])):
                what = f"order {order} alone"
                left = await self.one(keeper, order, what)
                if isinstance(got := self.returned[order], Exception):
                    error = f"{type(got).__name__}: {got}".rstrip(": ")
                    raise lab.LabError(f"{what}: expected {wanted}, and got {error}.") from None
                if got is not wanted:
                    raise NotYet(f"{what} should be {wanted}, and was {got!r}.")
                if left != steps:
                    raise NotYet(
                        f"{what} returned {wanted} and left the steps {left}. Expected {steps}. "
                        f"{IS_DONE if wanted else IS_UNDONE}"
                    )
            self.borrowed_alone = self.most_borrowed
            await self.cancelled(keeper, good)
            await keeper.execute("ALTER TABLE labkit.bookings ADD CHECK (step <> 'charged')")
            refused_by_database = f"the database refused to charge order {good}"
            if left := await self.one(keeper, good, "an order whose charge fails"):
                raise NotYet(
                    f"{refused_by_database}, and the steps {left} were left. Expected both or "
                    f"none. {TOGETHER}"
                )
            if not isinstance(got := self.returned[good], Exception):
                raise NotYet(
                    f"{refused_by_database}, nothing was left, and your function returned {got!r}. "
                    f"Expected the database's error: let it through, as the old function does."
                )

    async def cancelled(self, keeper: asyncpg.Connection, order: int) -> None:
        """Its caller goes away in the middle: the booking may be broken off, or still be ended."""
        async with held(keeper, "labkit.bookings", lambda: self.begin(order)) as booking:
            reached = booking.cancel()
        await asyncio.wait([booking])
        when = f"the caller of order {order} went away in the middle"
        await self.all_came_back(when)
        if reached and (fault := swallowed(booking, when)):
            raise NotYet(fault)
        left = [row["step"] for row in await keeper.fetch(CLEAR)]
        if left not in ([], BOTH):
            raise NotYet(f"{when}, and left the steps {left}. Expected both or none. {TOGETHER}")

    async def one(self, keeper: asyncpg.Connection, order: int, what: str) -> list[str]:
        """Book an order, and look at the table meanwhile. Returns the steps that were left."""
        booking = self.begin(order)
        half: list[str] = []
        while not booking.done():
            steps = [row["step"] for row in await keeper.fetch("TABLE labkit.bookings")]
            half = steps if len(steps) == 1 else half
        try:
            await booking
        except NotYet:
            raise
        except Exception as error:
            self.returned[order] = error
        await self.all_came_back(f"{what} was over")
        left = await keeper.fetch(CLEAR)
        if half and len(left) != 1:
            raise NotYet(
                f"others could see {what} half done: for a while there was {half} alone. {TOGETHER}"
            )
        return [row["step"] for row in left]

    async def your_bookings(self, load: lab.Load) -> None:
        """Alone, then twenty at once, while the service answers lookups from another pool."""
        await self.alone()
        async with self.set_up() as keeper, asyncpg.create_pool(self.dsn) as others:
            orders = iter(self.expected)
            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            load.offer("lookup", lambda: others.fetchval(lookup), rate=200)
            load.offer("booking", lambda: self.book(next(orders)), rate=2, burst=CROWD)
            load.gauge("in use", lambda: self.borrowed)
            with opened() as self.opened:
                await load.run(seconds=0.5)
            for order, step in await keeper.fetch(f"TABLE labkit.bookings {BY_STEP}"):
                self.rows.setdefault(order, []).append(step)
            if self.returned == self.expected:
                await self.side_by_side(keeper)

    async def side_by_side(self, keeper: asyncpg.Connection) -> None:
        """Hold one booking for each connection where it wants to write: all should get there.

        Who holds a connection may still wait for another booking, here or in the server.
        """
        orders = [order for order, good in self.expected.items() if good][:SIZE]
        await keeper.execute(CLEAR)

        def all_at_once() -> asyncio.Future[list[object]]:
            calls = (self.answer(self.pool, order) for order in orders)
            return asyncio.gather(*calls, return_exceptions=True)

        async with held(keeper, "labkit.bookings", all_at_once) as bookings:
            for _ in range(int(MOMENT / 0.02)):  # turns, as in a_moment_until
                self.most_writers = max(self.most_writers, await keeper.fetchval(WRITERS))
                if self.most_writers == SIZE:
                    break
                await asyncio.sleep(0.02)
        await bookings

    def judge(self, run: lab.Run) -> lab.Verdict:
        """What the crowd showed."""
        bookings = run.requests[run.requests.offer == "booking"]
        errors = bookings.error.dropna()
        hung = errors[errors.str.startswith(NotYet.__name__)]
        if len(hung):
            seen = (
                f"{len(hung)} of {CROWD} bookings at once had not returned after {PATIENCE:g} s, "
                f"with {self.most_borrowed} of the pool's {SIZE} connections in use."
            )
            if self.borrowed_alone > 1:
                seen += (
                    f" A booking alone borrowed {self.borrowed_alone} at once: in a crowd each "
                    f"has one, and waits for another that never comes back."
                )
            raise by_the_clock(run, 1e3 * PATIENCE / 8, seen)
        shared = errors[errors.str.startswith(("InterfaceError", "NoActiveSQLTransaction"))]
        if len(shared):
            raise NotYet(
                f"alone it works, but of {CROWD} bookings at once {len(errors)} failed: "
                f"{shared.iloc[0]}. Somebody else was using the same connection."
            )
        if not self.most_borrowed:
            raise NotYet(
                f"none of {CROWD} bookings at once borrowed a connection of `pool`: they work on "
                f"connections beside it. Those cost time to open, and nobody limits how many there "
                f"are. Each booking is to borrow one from `pool`."
            )
        if self.opened:
            raise NotYet(
                f"{len(self.opened)} connections were opened while {CROWD} bookings ran at once: "
                f"that costs time, and nobody limits how many. Wait for one of the pool's."
            )
        if len(errors):
            raise lab.LabError(f"{len(errors)} of {CROWD} at once: {errors.iloc[0]}")
        if self.returned != self.expected:
            wrong = [o for o in self.expected if self.returned[o] is not self.expected[o]]
            raise NotYet(
                f"of {CROWD} at once, the answers for orders {wrong} were wrong: order {wrong[0]} "
                f"should be {self.expected[wrong[0]]}, and was {self.returned[wrong[0]]!r}."
            )
        booked = {o: BOTH for o, good in self.expected.items() if good}
        if self.rows != booked:
            wrong = sorted(o for o in self.expected if self.rows.get(o) != booked.get(o))
            raise NotYet(
                f"of {CROWD} at once, orders {wrong} returned the right answer and left the wrong "
                f"rows: {self.rows.get(wrong[0], [])} for order {wrong[0]}."
            )
        waited_at_a_line(run)
        took = f"{CROWD} bookings at once took {run.latency('booking').max:.0f} ms"
        if self.most_borrowed < SIZE:
            seen = (
                f"all right, but no more than {self.most_borrowed} of the pool's {SIZE} "
                f"connections were ever in use at once. {took}; something makes them wait for each "
                f"other."
            )
            if self.most_inside < SIZE:  # the load itself started them one after the other
                raise by_the_clock(run, 20, seen)  # the server's pause
            raise NotYet(seen)
        if self.most_writers < SIZE:
            raise NotYet(
                f"all right, but of {SIZE} bookings that had a connection each, no more than "
                f"{self.most_writers or 1} came to write at the same time: the others wait for it, "
                f"and hold their connections meanwhile. Look for a lock that all bookings take, in "
                f"your code or in the server."
            )
        return lab.Verdict(
            "pass",
            f"{took}, all right, on all {SIZE} connections, and all came back. "
            f"The lookups meanwhile: {run.latency()}.",
        )
