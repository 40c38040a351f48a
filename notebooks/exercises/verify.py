"""Exercise of notebook 06: a concurrency test that finds what is wrong. This file is to be read.

An answer is judged by what it finds in five services, four of which go wrong in different ways.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from decimal import Decimal
from numbers import Integral
from typing import Any

import asyncpg
from orders_service.db import open_database
from orders_service.pricing import PRICE, open_pricing
from orders_service_repaired.db import open_database as open_repaired_database
from orders_service_repaired.pricing import open_pricing as open_repaired_pricing

import labkit as lab
from labkit.exercises import NotYet, by_the_clock, database

HINTS = [
    "Two things can go wrong with a call: it raises, or it returns what somebody else asked for. "
    "And both happen only while several calls are on their way. How many are, in your test?",
    "`asyncio.gather(*(... for order in right))` starts all the calls before it waits for one. "
    "With `return_exceptions=True` an error becomes an answer like any other, in its place.",
    "`answers = await asyncio.gather(*(price(order) for order in right), return_exceptions=True)`; "
    "then count the answers that are not what `right` says: "
    "`zip(answers, right.values(), strict=True)` puts the two side by side.",
]

SOLUTION = """
async def wrong_calls(price, right):
    calls = (price(order) for order in right)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    return sum(answer != amount for answer, amount in zip(answers, right.values(), strict=True))
"""

WHY = """the calls overlap, so that what is shared is shared. Each answer is checked, and an error
is counted, not thrown: so one does not hide the rest.
Where calls may hang, put an `asyncio.timeout()` around each.
When not to use it: for what is only slow, as a connection behind a lock is. There, a load and its
percentiles tell more. Nor for a lost write: read it back."""

Price = Callable[[int], Awaitable[Decimal]]

CALLS = 200
CROWD = 40
RIGHT = "SELECT id, round(amount * 1.19, 2) FROM labkit.orders WHERE id <= $1 ORDER BY id"
REPAIRED = "the repaired service"


class Watched:
    """A service's `price`, which counts what becomes of the calls."""

    def __init__(self, price: Price, right: dict[int, Decimal]) -> None:
        self._price, self.right = price, right
        self.asked: set[int] = set()
        self.ended: set[int] = set()  # by an error, or by a price
        self.inside = self.at_once = self.calls = self.errors = self.mixed = 0
        self.error: Exception | None = None  # the last
        self.broken_off = CALLS  # orders of which no call had ended when the answer returned

    async def price(self, order: int) -> Decimal:
        """What the answer is given to call."""
        self.asked.add(order)
        self.calls += 1
        self.inside += 1
        self.at_once = max(self.at_once, self.inside)
        try:
            amount = await self._price(order)
        except Exception as error:
            self.errors, self.error = self.errors + 1, error
            self.ended.add(order)
            raise
        finally:
            self.inside -= 1
        self.ended.add(order)
        self.mixed += amount != self.right[order]
        return amount


class Forgetful:
    """Remembers on `self` which orders it was asked for. So it has one memory for everybody."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.pool = pool
        self.orders: list[int] = []

    async def price(self, order: int) -> Decimal:
        """No error, and the price that somebody else has asked for: right ones, exchanged."""
        self.orders.append(order)
        async with self.pool.acquire() as connection:
            await connection.execute("SELECT 'whether this customer pays tax'")
            found: Decimal = await connection.fetchval(PRICE, self.orders.pop())
        return found


class TooDear:
    """Is wrong for everybody and always, by a cent: no two answers differ from each other."""

    def __init__(self, price: Price) -> None:
        self._price = price

    async def price(self, order: int) -> Decimal:
        """No error, and not the price of any order."""
        return await self._price(order) + Decimal("0.01")


class Crowded:
    """Is right until there are too many at once, as with a connection for each call."""

    def __init__(self, price: Price) -> None:
        self._price, self.inside = price, 0

    async def price(self, order: int) -> Decimal:
        """No error but in a crowd."""
        self.inside += 1
        try:
            if self.inside > CROWD:
                raise asyncpg.TooManyConnectionsError("sorry, too many clients already")
            return await self._price(order)
        finally:
            self.inside -= 1


def check(answer: Callable[[Price, dict[int, Decimal]], Awaitable[object]]) -> lab.Verdict:
    """Let the answer test five services, while lookups go on, and compare what it found."""
    dsn = database()
    services: dict[str, Watched] = {}
    counted: dict[str, object] = {}
    raised: dict[str, str] = {}

    async def your_test(load: lab.Load) -> None:
        async with AsyncExitStack() as stack:
            old = await stack.enter_async_context(open_database(dsn))
            new = await stack.enter_async_context(open_repaired_database(dsn))
            shared = await stack.enter_async_context(open_pricing(old))
            repaired = await stack.enter_async_context(open_repaired_pricing(new))
            right = dict(map(tuple, await new.pool.fetch(RIGHT, CALLS)))
            prices: dict[str, Any] = {
                REPAIRED: repaired.price,
                "the service with a shared connection": shared.price,
                "the service that remembers the orders on self": Forgetful(new.pool).price,
                "the service that is a cent too dear": TooDear(repaired.price).price,
                "the service that breaks in a crowd": Crowded(repaired.price).price,
            }

            async def test() -> None:
                for name, price in prices.items():
                    services[name] = Watched(price, right)
                    try:
                        counted[name] = await answer(services[name].price, dict(right))
                    except BaseException as error:  # it may also cancel itself
                        if load.over or load.broken_off:  # the load's patience is over
                            raise
                        raised[name] = f"{type(error).__name__}: {error}".removesuffix(": ")
                        return
                    services[name].broken_off -= len(services[name].ended)  # not what ends later

            load.offer("lookup", lambda: new.pool.fetchval(PRICE, 7), rate=100)
            load.offer("test", test, rate=2)
            await load.run(seconds=0.5)

    run = lab.measure(your_test, threshold_ms=250)
    return judge(run, services, counted, raised)


def judge(
    run: lab.Run, services: dict[str, Watched], counted: dict[str, object], raised: dict[str, str]
) -> lab.Verdict:
    """Compare what was counted with what went wrong; the first difference is the verdict."""
    at_once = services[REPAIRED].at_once  # where each call takes its time
    for name, watched in services.items():
        wrong = watched.errors + watched.mixed
        if name in raised:
            own = "" if wrong == 0 else " What a call raises is a call that went wrong: count it."
            raise lab.LabError(f"on {name} your test raised {raised[name]}.{own}")
        if name not in counted:  # the load's patience was over, with several slow ones in turn
            seen = f"on {name} your test had not ended when the time was up."
            raise by_the_clock(run, 1_000, seen)
        count = counted[name]
        if not isinstance(count, Integral):  # numpy's numbers, too
            said = f"Expected a whole number of calls, and got {count!r:.100}."
            raise NotYet(said)
        if (asked := len(watched.asked & watched.right.keys())) < CALLS:
            said = f"your test asked for {asked} of the {CALLS} orders in `right`."
            raise NotYet(said)
        if watched.calls > CALLS:
            raise NotYet(
                f"on {name}, your test made {watched.calls} calls for {CALLS} orders. Ask for each "
                f"order once: a call that went wrong has gone wrong, also if the next one does not."
            )
        if at_once < CALLS and (error := services[REPAIRED].error):  # and so they ended at once
            said = f"on {REPAIRED}, a call raised {error!r}. Look at how your test makes the calls."
            raise lab.LabError(said)
        if at_once == 1:
            all_wrong = sum(each.errors + each.mixed for each in services.values())
            said = (
                f"your test makes one call after the other: at most 1 at once. Four of the five "
                f"services are broken, and in all of them together {all_wrong} calls went wrong."
            )
            raise NotYet(said)
        if at_once < CALLS:
            said = (
                f"your test had at most {at_once} of {CALLS} calls on their way at once. One of "
                f"the services breaks only in a crowd: there might not be enough of one."
            )
            raise NotYet(said)
        if count != wrong:
            what = f"{watched.errors} raised, {watched.mixed} returned a wrong price"
            said = f"on {name}, {wrong} of {watched.calls} calls went wrong ({what}). You counted"
            if count < wrong:
                raise NotYet(f"{said} {count}.")
            # A test may count what takes long, too: then there may be more on a busy machine.
            raise by_the_clock(run, 100, f"{said} {count}.")
        if watched.broken_off:
            raise NotYet(
                f"on {name}, the calls for {watched.broken_off} of the {CALLS} orders had not "
                f"ended when your test returned, so it cannot know what they would have returned. "
                f"Wait for each, whatever becomes of the others."
            )
    found = "; ".join(f"{name}: {number}" for name, number in counted.items())
    return lab.Verdict("pass", f"your test found what there was, with {CALLS} at once. {found}.")
