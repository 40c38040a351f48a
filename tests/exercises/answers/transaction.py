"""Answers to the exercise "transaction" of notebook 07."""

import asyncio
import contextlib
import time

import asyncpg
from legacy.sale import CANCEL, GIVE_BACK, PAY, RESERVE, TAKE, Declined, sell

from labkit.exercises import database
from tests.exercises.answers import Case


async def is_the_old_one(pool, bank, item, customer):
    return await sell(pool, bank, item, customer)


async def keeps_the_connection(pool, bank, item, customer):
    async with pool.acquire() as connection:
        async with connection.transaction():
            if await connection.fetchval(TAKE, item) is None:
                return False
            await connection.execute(RESERVE, customer, item)
        await bank.charge(customer)
        await connection.execute(PAY, customer, item)
    return True


async def asks_the_bank_first(pool, bank, item, customer):
    await bank.charge(customer)
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(TAKE, item) is None:
            return False
        await connection.execute(RESERVE, customer, item)
        await connection.execute(PAY, customer, item)
    return True


async def is_paid_too_soon(pool, bank, item, customer):
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(TAKE, item) is None:
            return False
        await connection.execute(RESERVE, customer, item)
        await connection.execute(PAY, customer, item)
    await bank.charge(customer)
    return True


async def never_undoes(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    await bank.charge(customer)
    await pool.execute(PAY, customer, item)
    return True


async def undoes_what_it_expects(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except Declined:
        await undo(pool, item, customer)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def forgets_cancellation(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except Exception:
        await undo(pool, item, customer)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def shields_the_bank(pool, bank, item, customer):
    """The customer goes away, and pays all the same."""
    if not await reserve(pool, item, customer):
        return False
    try:
        await asyncio.shield(bank.charge(customer))
    except BaseException:
        await undo(pool, item, customer)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def shields_the_sale(pool, bank, item, customer):
    """The customer goes away, and the whole sale goes on: it is paid for, and nobody is told."""
    return await asyncio.shield(with_a_flag(pool, bank, item, customer))


async def notes_the_payment_in_the_background(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except BaseException:
        await undo(pool, item, customer)
        raise
    background.append(asyncio.create_task(pool.execute(PAY, customer, item)))
    return True


background: list[asyncio.Task[object]] = []


async def undoes_by_halves(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except BaseException:
        await pool.execute(GIVE_BACK, item)
        await pool.execute(CANCEL, customer, item)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def undoes_in_the_other_order(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except BaseException:
        await pool.execute(CANCEL, customer, item)
        await pool.execute(GIVE_BACK, item)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def takes_by_halves(pool, bank, item, customer):
    """Gives back what it could not reserve; but others could see that it was taken."""
    if await pool.fetchval(TAKE, item) is None:
        return False
    try:
        await pool.execute(RESERVE, customer, item)
    except BaseException:
        await pool.execute(GIVE_BACK, item)
        raise
    return await is_paid(pool, bank, item, customer)


async def leaves_the_row(pool, bank, item, customer):
    """The state says that it is over; but the key is taken, and who was declined never buys it."""
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except BaseException:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(GIVE_BACK, item)
            cancel = "UPDATE labkit.sales SET state = 'cancelled' WHERE customer = $1 AND item = $2"
            await connection.execute(cancel, customer, item)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def sleeps_in_the_loop(pool, bank, item, customer):
    time.sleep(0.05)
    return await with_a_flag(pool, bank, item, customer)


async def swallows_the_refusal(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except BaseException:
        await undo(pool, item, customer)
        return False
    await pool.execute(PAY, customer, item)
    return True


async def has_no_transaction(pool, bank, item, customer):
    if await pool.fetchval(TAKE, item) is None:
        return False
    await pool.execute(RESERVE, customer, item)
    return await is_paid(pool, bank, item, customer)


async def looks_before_it_takes(pool, bank, item, customer):
    if not await pool.fetchval("SELECT available FROM labkit.stock WHERE item = $1", item):
        return False
    await pool.execute(RESERVE, customer, item)
    try:
        await bank.charge(customer)
    except BaseException:
        await pool.execute(CANCEL, customer, item)
        raise
    if await pool.fetchval(TAKE, item) is None:
        return False
    await pool.execute(PAY, customer, item)
    return True


async def takes_what_is_not_there(pool, bank, item, customer):
    """Looks and takes in one transaction; but others can take between the two."""
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval(
            "SELECT available FROM labkit.stock WHERE item = $1", item
        ):
            return False
        await connection.execute(
            "UPDATE labkit.stock SET available = available - 1 WHERE item = $1", item
        )
        await connection.execute(RESERVE, customer, item)
    return await is_paid(pool, bank, item, customer)


async def locks_when_it_looks(pool, bank, item, customer, lock="FOR UPDATE"):
    """Another style: the row is locked from the look on, so nobody comes between."""
    look = f"SELECT available FROM labkit.stock WHERE item = $1 {lock}"
    async with pool.acquire() as connection, connection.transaction():
        if not await connection.fetchval(look, item):
            return False
        await connection.fetchval(TAKE, item)
        await connection.execute(RESERVE, customer, item)
    return await is_paid(pool, bank, item, customer)


async def locks_in_this_process(pool, bank, item, customer):
    """Nobody of this process comes between look and taking; but there are others."""
    async with lock(), pool.acquire() as connection, connection.transaction():
        left = await connection.fetchval("SELECT available FROM labkit.stock WHERE item = 7")
        if not left:
            return False
        await connection.execute("UPDATE labkit.stock SET available = $1 WHERE item = 7", left - 1)
        await connection.execute(RESERVE, customer, item)
    return await is_paid(pool, bank, item, customer)


async def gives_back_what_it_read(pool, bank, item, customer):
    """Undoes in one transaction, but writes a number that is out of date."""
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except BaseException:
        async with pool.acquire() as connection, connection.transaction():
            left = await connection.fetchval("SELECT available FROM labkit.stock WHERE item = 7")
            await connection.execute(
                "UPDATE labkit.stock SET available = $1 WHERE item = 7", left + 1
            )
            await connection.execute(CANCEL, customer, item)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def sells_elsewhere(pool, bank, item, customer):
    """No connection of the pool is borrowed; but the transaction is as long, and locks the row."""
    connection = await asyncpg.connect(database())
    try:
        async with connection.transaction():
            if await connection.fetchval(TAKE, item) is None:
                return False
            await connection.execute(RESERVE, customer, item)
            await bank.charge(customer)
            await connection.execute(PAY, customer, item)
    finally:
        await connection.close()
    return True


async def keeps_one_of_its_own(pool, bank, item, customer):
    """No lock, and the pool is free; but each customer keeps a connection all the same."""
    connection = await asyncpg.connect(database())
    try:
        async with connection.transaction():
            if await connection.fetchval(TAKE, item) is None:
                return False
            await connection.execute(RESERVE, customer, item)
        await bank.charge(customer)
        await connection.execute(PAY, customer, item)
    finally:
        await connection.close()
    return True


async def takes_the_cancellation_for_a_refusal(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except asyncio.CancelledError:
        await undo(pool, item, customer)
        return False
    except Exception:
        await undo(pool, item, customer)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def undoes_what_is_paid_for(pool, bank, item, customer):
    """The bank keeps the money, whatever becomes of the last statement."""
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
        await pool.execute(PAY, customer, item)
    except BaseException:
        await undo(pool, item, customer)
        raise
    return True


async def undoes_what_it_did_not_do(pool, bank, item, customer):
    """If the reservation is refused, that customer's earlier sale goes."""
    try:
        if not await reserve(pool, item, customer):
            return False
        await bank.charge(customer)
    except BaseException:
        await undo(pool, item, customer)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def hides_that_it_is_not_noted(pool, bank, item, customer):
    with contextlib.suppress(asyncpg.PostgresError):
        return await with_a_flag(pool, bank, item, customer)
    return True


async def says_true_when_it_is_cancelled(pool, bank, item, customer):
    if not await reserve(pool, item, customer):
        return False
    await charge_or_undo(pool, bank, item, customer)
    with contextlib.suppress(asyncio.CancelledError):
        await pool.execute(PAY, customer, item)
    return True


async def gives_up_on_a_lock(pool, bank, item, customer):
    try:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = 100")
            if await connection.fetchval(TAKE, item) is None:
                return False
            await connection.execute(RESERVE, customer, item)
    except asyncpg.LockNotAvailableError:
        return False
    return await is_paid(pool, bank, item, customer)


async def raises_another_like_it(pool, bank, item, customer):
    try:
        return await with_a_flag(pool, bank, item, customer)
    except Declined as error:
        raise Declined(*error.args) from None


async def forgets_the_item(pool, bank, item, customer):
    """A customer may have bought something else, too."""
    if not await reserve(pool, item, customer):
        return False
    pay = "UPDATE labkit.sales SET state = 'paid' WHERE customer = $1", customer
    return await is_paid(pool, bank, item, customer, pay=pay)


async def forgets_the_customer(pool, bank, item, customer):
    """Others may have reserved the same item."""
    if not await reserve(pool, item, customer):
        return False
    pay = "UPDATE labkit.sales SET state = 'paid' WHERE item = $1", item
    return await is_paid(pool, bank, item, customer, pay=pay)


async def cancels_for_everybody(pool, bank, item, customer):
    """The same where it undoes."""
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
    except BaseException:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(GIVE_BACK, item)
            await connection.execute("DELETE FROM labkit.sales WHERE item = $1", item)
        raise
    await pool.execute(PAY, customer, item)
    return True


async def undoes_all_that_it_has_heard_of(pool, bank, item, customer):
    """A bank can raise something else, too."""
    if not await reserve(pool, item, customer):
        return False
    known = Declined, OSError, TimeoutError, RuntimeError, asyncio.CancelledError
    return await is_paid(pool, bank, item, customer, known=known)


async def skips_what_is_locked(pool, bank, item, customer):
    """Whoever meets another customer is told that none is left."""
    return await locks_when_it_looks(pool, bank, item, customer, "FOR UPDATE SKIP LOCKED")


async def gives_up_when_it_loses_a_race(pool, bank, item, customer):
    """Takes only if nobody has taken since it looked, and does not look again."""
    async with pool.acquire() as connection, connection.transaction():
        if not await took_what_it_saw(connection, item):
            return False
        await connection.execute(RESERVE, customer, item)
    return await is_paid(pool, bank, item, customer)


async def looks_again_when_it_loses_a_race(pool, bank, item, customer):
    """Another style: the same, until it has won or none is left."""
    while True:
        async with pool.acquire() as connection, connection.transaction():
            if took := await took_what_it_saw(connection, item):
                await connection.execute(RESERVE, customer, item)
                break
        if took is None:
            return False
    return await is_paid(pool, bank, item, customer)


async def took_what_it_saw(connection, item):
    """None if none is left; False if somebody else was quicker."""
    seen = await connection.fetchval("SELECT available FROM labkit.stock WHERE item = $1", item)
    if not seen:
        return None
    take = "UPDATE labkit.stock SET available = $2 - 1 WHERE item = $1 AND available = $2"
    return await connection.execute(take, item, seen) == "UPDATE 1"


async def does_not_wait_for_a_connection(pool, bank, item, customer):
    """The pool is busy; but that is not the stock."""
    try:
        async with pool.acquire(timeout=0.01) as connection, connection.transaction():
            if await connection.fetchval(TAKE, item) is None:
                return False
            await connection.execute(RESERVE, customer, item)
    except TimeoutError:
        return False
    return await is_paid(pool, bank, item, customer)


async def has_its_own_name_for_a_reservation(pool, bank, item, customer):
    reservation = "INSERT INTO labkit.sales VALUES ($1, $2, 'pending')"
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(TAKE, item) is None:
            return False
        await connection.execute(reservation, customer, item)
    return await is_paid(pool, bank, item, customer)


async def looks_at_the_stock_meanwhile(pool, bank, item, customer):
    """Another style: a short query beside the bank, whose connection is back long before."""
    if not await reserve(pool, item, customer):
        return False
    stock = "SELECT available FROM labkit.stock WHERE item = $1"
    look = asyncio.ensure_future(pool.fetchval(stock, item))
    try:
        return await is_paid(pool, bank, item, customer)
    finally:
        await asyncio.wait([look])


locks: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}  # a lock belongs to one loop


def lock():
    return locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def one_at_a_time(pool, bank, item, customer):
    async with lock():
        return await with_a_flag(pool, bank, item, customer)


async def raises(pool, bank, item, customer):
    async with pool.transaction():
        await pool.execute(RESERVE, customer, item)


async def with_a_flag(pool, bank, item, customer):
    """Another style: `finally`, and a flag that says how it went."""
    paid = False
    if not await reserve(pool, item, customer):
        return False
    try:
        await bank.charge(customer)
        paid = True
    finally:
        if not paid:
            await asyncio.shield(undo(pool, item, customer))
    await pool.execute(PAY, customer, item)
    return True


async def reserve(pool, item, customer):
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(TAKE, item) is None:
            return False
        await connection.execute(RESERVE, customer, item)
    return True


async def is_paid(pool, bank, item, customer, *, pay=None, known=BaseException):
    await charge_or_undo(pool, bank, item, customer, known)
    await pool.execute(*(pay or (PAY, customer, item)))
    return True


async def charge_or_undo(pool, bank, item, customer, known=BaseException):
    try:
        await bank.charge(customer)
    except known:
        await undo(pool, item, customer)
        raise


async def undo(pool, item, customer):
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute(GIVE_BACK, item)
        await connection.execute(CANCEL, customer, item)


CASES = [
    Case(
        says_true_when_it_is_cancelled,
        "not yet",
        r"to be marked as paid: your function returned True, and the sales are .*'reserved'",
    ),
    Case(gives_up_on_a_lock, "not yet", "somebody had locked the table for a moment"),
    Case(raises_another_like_it, "not yet", r"Declined\('no credit'\), which is another"),
    Case(is_the_old_one, "not yet", r"the item's row was locked \(.* borrowed: 1\)"),
    Case(keeps_the_connection, "not yet", "no row was locked, but 1 connection was borrowed"),
    Case(is_paid_too_soon, "not yet", "marked as paid before the bank had answered"),
    Case(asks_the_bank_first, "not yet", "0 were left, and the bank was asked"),
    Case(never_undoes, "not yet", r"raised Declined\('no credit'\): 2 are left.*'reserved'"),
    Case(undoes_what_it_expects, "not yet", r"raised ConnectionError\(.*\): 2 are left"),
    Case(undoes_all_that_it_has_heard_of, "not yet", r"raised UnforeseenError\(.*\): 2 are left"),
    Case(forgets_cancellation, "not yet", r"was cancelled while .*: 2 of 3 are left"),
    Case(shields_the_bank, "not yet", r"took the money all the same: .* 3 of 3 are left, .* \[\]"),
    Case(shields_the_sale, "not yet", r"took the money all the same: .* 2 of 3 .* 'paid'\)\]"),
    Case(
        notes_the_payment_in_the_background,
        "not yet",
        r"not come back\. It came back later: something|a good customer: .* 'reserved'\)\]",
    ),
    Case(leaves_the_row, "not yet", "and could pay: expected True, .* UniqueViolationError"),
    Case(undoes_by_halves, "not yet", r"see that 3 of 3 were left and the sales were \[\(1, 'res"),
    Case(undoes_in_the_other_order, "not yet", r"that 2 of 3 were left and the sales were \[\]"),
    Case(takes_by_halves, "not yet", r"2 of 3 were left .* \[\]\. Taking and reserving belong"),
    Case(swallows_the_refusal, "not yet", r"expected Declined\(.*ended with False"),
    Case(has_no_transaction, "not yet", r"wanted another, .* afterwards 1 of 3 .* UniqueViolation"),
    Case(looks_before_it_takes, "not yet", r"see that 3 of 3 were left .* 'reserved'\)\]\. Taking"),
    Case(takes_what_is_not_there, "not yet", r"somebody else sold the last one .* -1 are left"),
    Case(
        locks_in_this_process,
        "not yet",
        r"somebody else sold the last one .* 0 are left, .* stops nobody in another process",
    ),
    Case(gives_back_what_it_read, "not yet", "somebody else sold 1 just .* 3 are left"),
    Case(one_at_a_time, "not yet", "no more than 1 of 20 customers were at", by_the_clock=True),
    Case(
        sleeps_in_the_loop,
        "not yet",
        r"a line of yours kept .*blocked.* transaction\.py:\d+ in sleeps_in_the_loop",
        by_the_clock=True,
    ),
    Case(sells_elsewhere, "not yet", r"the item's row was locked \(.* borrowed: 0\)"),
    Case(keeps_one_of_its_own, "not yet", "but 1 connection beside the pool was open"),
    Case(takes_the_cancellation_for_a_refusal, "not yet", "CancelledError was swallowed"),
    Case(undoes_what_is_paid_for, "not yet", r"taken the money, .* cancelled .* 3 of 3 are left"),
    Case(undoes_what_it_did_not_do, "not yet", r"wanted another, .* afterwards 3 of 3 .* \[\],"),
    Case(hides_that_it_is_not_noted, "not yet", r"returned True, and the sales .* 'reserved'"),
    Case(forgets_the_item, "not yet", r"item 8 has changed: 3 are left, .* \[\(1, 'paid'\)\]"),
    Case(forgets_the_customer, "not yet", r"customer 99, too, .* sales are \[\(99, 'paid'\)\]"),
    Case(cancels_for_everybody, "not yet", r"customer 99, too, .* sales are \[\]\. Expected"),
    Case(skips_what_is_locked, "not yet", r"told that none was left, and only \d+ of 12 had been"),
    Case(gives_up_when_it_loses_a_race, "not yet", "only .* a race that was lost says nothing"),
    Case(does_not_wait_for_a_connection, "not yet", "3 were left, .* Wait for a connection"),
    Case(has_its_own_name_for_a_reservation, "not yet", "no sale of it in the state 'reserved'"),
    Case(raises, "raised", "a good customer: AttributeError"),
    Case(locks_when_it_looks, "pass", r"\d+ sold, \d declined, \d left; \d+ customers were at"),
    Case(
        looks_at_the_stock_meanwhile,
        "pass",
        r"\d+ sold, \d declined, \d left; \d+ customers were at",
    ),
    Case(
        looks_again_when_it_loses_a_race,
        "pass",
        r"\d+ sold, \d declined, \d left; \d+ customers were at",
    ),
    Case(with_a_flag, "pass", r"\d+ sold, \d declined, \d left; \d+ customers were at"),
]
