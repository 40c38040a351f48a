"""Answers to the exercise "endpoint" of notebook 10."""

import asyncio
import hashlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import asyncpg
from legacy import statement as old

from labkit.exercises import database
from tests.exercises.answers import Case


async def text_of(pool, customer):
    rows = await pool.fetch(old.ORDERS, customer)
    return "\n".join(f"{row['id']}: {row['amount']}" for row in rows)


def answer(text, signature, kept_as):
    return {"orders": len(text.splitlines()), "signature": signature, "kept_as": kept_as}


async def calls_the_old_one(pool, archive, customer):
    return await old.statement(pool, archive, customer)


async def moves_the_archive_only(pool, archive, customer):
    text = await text_of(pool, customer)
    return answer(text, old.sign(text), await asyncio.to_thread(archive.keep, text))


async def moves_the_signature_only(pool, archive, customer):
    text = await text_of(pool, customer)
    return answer(text, await asyncio.to_thread(old.sign, text), archive.keep(text))


executor = ThreadPoolExecutor(4)


async def waits_for_its_threads(pool, archive, customer):
    text = await text_of(pool, customer)
    signed, kept = executor.submit(old.sign, text), executor.submit(archive.keep, text)
    return answer(text, signed.result(), kept.result())


async def signs_less(pool, archive, customer):
    text = await text_of(pool, customer)
    quick = hashlib.pbkdf2_hmac("sha256", text.encode(), old.KEY, 100).hex()
    return answer(text, quick, await asyncio.to_thread(archive.keep, text))


async def computes_in_slices(pool, archive, customer):
    text, number = await text_of(pool, customer), 0
    while number < 3_000_000:
        number += 1
        if number % 10_000 == 0:
            await asyncio.sleep(0)
    return answer(
        text, await asyncio.to_thread(old.sign, text), await asyncio.to_thread(archive.keep, text)
    )


tasks: set[object] = set()


async def keeps_it_later(pool, archive, customer):
    text = await text_of(pool, customer)
    task = asyncio.create_task(asyncio.to_thread(archive.keep, text))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return answer(text, await asyncio.to_thread(old.sign, text), 0)


async def remembers(pool, archive, customer, answers={}):  # noqa: B006
    if (archive, customer) not in answers:  # each check has an archive of its own
        answers[archive, customer] = await uses_a_thread(pool, archive, customer)
    return answers[archive, customer]


async def returns_a_tuple(pool, archive, customer):
    return tuple((await uses_a_thread(pool, archive, customer)).values())


async def has_a_mistake(pool, archive, customer):
    return await asyncio.to_thread(old.statement, pool, archive)


async def gives_back_what_json_cannot_say(pool, archive, customer):
    return await uses_a_thread(pool, archive, customer) | {"signature": object()}


async def forgets_to_await(pool, archive, customer):
    text = await text_of(pool, customer)
    signature = asyncio.to_thread(old.sign, text)
    return answer(text, signature, await asyncio.to_thread(archive.keep, text))


async def runs_the_old_one_on_a_loop_of_its_own(pool, archive, customer):
    """The pool is asked from another thread: asyncpg may take the whole process with it."""
    return await asyncio.to_thread(asyncio.run, old.statement(pool, archive, customer))


def forgets_async(pool, archive, customer):
    return archive.keep(old.sign("no rows"))


async def keeps_the_connection(pool, archive, customer):
    async with pool.acquire() as connection:
        return await uses_a_thread(connection, archive, customer)


async def never_gives_it_back(pool, archive, customer):
    """After two calls, there is none left, for anybody."""
    connection = await pool.acquire()
    return await uses_a_thread(connection, archive, customer)


async def keeps_it_to_sign(pool, archive, customer):
    async with pool.acquire() as connection:
        text = await text_of(connection, customer)
        signature = await asyncio.to_thread(old.sign, text)
    return answer(text, signature, await asyncio.to_thread(archive.keep, text))


async def opens_a_connection_to_keep(pool, archive, customer):
    connection = await asyncpg.connect(database())
    try:
        return await uses_a_thread(connection, archive, customer)
    finally:
        await connection.close()


async def keeps_it_while_a_process_signs(pool, archive, customer):
    """Nobody in this process signs anything."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        async with pool.acquire() as connection:
            text = await text_of(connection, customer)
            signature = await loop.run_in_executor(processes, old.sign, text)
    return answer(text, signature, await asyncio.to_thread(archive.keep, text))


async def keeps_it_while_its_own_client_keeps(pool, archive, customer):
    """The vendor's client is not asked."""
    async with pool.acquire() as connection:
        text = await text_of(connection, customer)
        kept_as = await by_a_client_of_its_own(archive, text)
    return answer(text, await asyncio.to_thread(old.sign, text), kept_as)


async def keeps_it_while_a_program_signs(pool, archive, customer):
    """Nothing of this process's says when it has signed."""
    sign = "import sys; from legacy.statement import sign; print(sign(sys.stdin.read()), end='')"
    async with pool.acquire() as connection:
        text = await text_of(connection, customer)
        python = await asyncio.create_subprocess_exec(
            sys.executable, "-c", sign, stdin=-1, stdout=-1, cwd=Path(old.__file__).parents[1]
        )
        signature, _ = await python.communicate(text.encode())
    return answer(text, signature.decode(), await asyncio.to_thread(archive.keep, text))


texts: dict[int, str] = {}


async def remembers_the_orders(pool, archive, customer):
    if customer not in texts:
        texts[customer] = await text_of(pool, customer)
    text = texts[customer]
    signature = await asyncio.to_thread(old.sign, text)
    return answer(text, signature, await asyncio.to_thread(archive.keep, text))


async def keeps_a_list(pool, archive, customer):
    text = await text_of(pool, customer)
    kept_as = await asyncio.gather(asyncio.to_thread(archive.keep, text))
    return answer(text, await asyncio.to_thread(old.sign, text), kept_as)


async def has_a_client_of_its_own(pool, archive, customer):
    """Another style: what goes over the network needs no thread."""
    text = await text_of(pool, customer)
    signature = await asyncio.to_thread(old.sign, text)
    return answer(text, signature, await by_a_client_of_its_own(archive, text))


async def by_a_client_of_its_own(archive, text):
    reader, writer = await asyncio.open_connection(*archive.address)
    writer.write(text.encode())
    writer.write_eof()
    number = int(await reader.read(20))
    writer.close()
    return number


async def keeps_it_twice(pool, archive, customer):
    await asyncio.to_thread(archive.keep, await text_of(pool, customer))
    return await uses_a_thread(pool, archive, customer)


async def blocks_in_its_first_call(pool, archive, customer, seen=set()):  # noqa: B006
    if archive not in seen:
        seen.add(archive)
        time.sleep(0.3)
    return await uses_a_thread(pool, archive, customer)


async def counts_while_it_signs(pool, archive, customer):
    """Another style: a connection is borrowed meanwhile, but only for a short query."""
    text = await text_of(pool, customer)
    signature, kept_as, orders = await asyncio.gather(
        asyncio.to_thread(old.sign, text),
        asyncio.to_thread(archive.keep, text),
        pool.fetchval("SELECT count(*) FROM labkit.orders WHERE customer = $1", customer),
    )
    return {"orders": orders, "signature": signature, "kept_as": kept_as}


class Statement:
    """Another style: an object that can be called."""

    __name__ = "an_object"

    async def __call__(self, pool, archive, customer):
        return await uses_a_thread(pool, archive, customer)


async def uses_a_thread(pool, archive, customer):
    text = await text_of(pool, customer)
    signature = await asyncio.to_thread(old.sign, text)
    return answer(text, signature, await asyncio.to_thread(archive.keep, text))


async def does_both_at_once(pool, archive, customer):
    text = await text_of(pool, customer)
    loop = asyncio.get_running_loop()
    signed = loop.run_in_executor(executor, old.sign, text)
    kept = loop.run_in_executor(executor, archive.keep, text)
    return answer(text, *await asyncio.gather(signed, kept))


CASES = [
    Case(computes_in_slices, "not yet", r"\d{3} ms of CPU time on the loop's thread"),
    Case(
        calls_the_old_one,
        "not yet",
        r"signed at statement\.py:\d+ in sign: .*kept at statement\.py:\d+ in statement: ",
    ),
    Case(
        moves_the_archive_only,
        "not yet",
        r"meanwhile:\n  signed at .* in sign: return hashlib\.pbkdf2_hmac",
    ),
    Case(
        moves_the_signature_only,
        "not yet",
        r"meanwhile:\n  kept at endpoint\.py:\d+ in moves_the_signature_only: return",
    ),
    Case(
        waits_for_its_threads,
        "not yet",
        r"7 statements.*: return answer\(text, signed\.result",
        by_the_clock=True,
    ),
    Case(
        blocks_in_its_first_call,
        "not yet",
        r"for 10 ms or more, in (?s:.*) blocked, at .* in blocks_in_its_first_call: time\.sleep",
        by_the_clock=True,
    ),
    Case(signs_less, "not yet", r"for customer \d+, 'signature' is '\w+'\. The old one"),
    Case(keeps_it_later, "not yet", "kept_as is 0, and the archive has no such statement"),
    Case(remembers, "not yet", r"6 statements were made, and 4 were kept"),
    Case(returns_a_tuple, "not yet", r"expected a dict of orders, .* and got \[200, "),
    Case(has_a_mistake, "raised", r"a statement: TypeError: .*customer"),
    Case(
        gives_back_what_json_cannot_say,
        "not yet",
        r"'signature' is of type object, and <object .*> cannot go out as JSON\. Expected",
    ),
    Case(
        forgets_to_await,
        "not yet",
        r"'signature' is of type coroutine, .* as JSON\. Is an `await` missing\?",
    ),
    Case(
        runs_the_old_one_on_a_loop_of_its_own,
        "not yet",
        r"used a pool on another loop .*: at statement\.py:\d+ in statement, in the thread 'a",
    ),
    Case(forgets_async, "not yet", r"returned \d+, which cannot be awaited"),
    Case(
        keeps_the_connection,
        "not yet",
        "signed, and 1 connection of the pool was still borrowed",
    ),
    Case(
        never_gives_it_back,
        "not yet",
        r"had not ended after 8 s: it waited at endpoint\.py:\d+ in never_gives_it_back\.",
        by_the_clock=True,
    ),
    Case(keeps_it_to_sign, "not yet", "a text had been signed, and 1 connection of the pool"),
    Case(opens_a_connection_to_keep, "not yet", "1 connection beside the pool was still open"),
    Case(
        keeps_it_while_a_process_signs,
        "not yet",
        "in the hands of another process, and 1 connection of the pool was still borrowed",
    ),
    Case(keeps_it_while_its_own_client_keeps, "not yet", "a text had been kept, and 1 connection"),
    Case(
        keeps_it_while_a_program_signs,
        "not yet",
        r"read, and for \d+ ms a connection was kept",
        by_the_clock=True,
    ),
    Case(remembers_the_orders, "not yet", r"an order of customer 2\d{6} had come in since the"),
    Case(keeps_a_list, "not yet", r"kept_as is \[\d+\], and the archive has no such statement un"),
    Case(has_a_client_of_its_own, "pass", "6 statements over HTTP, all right and all"),
    Case(keeps_it_twice, "not yet", "7 statements were made, and the archive has 14"),
    Case(Statement(), "pass", "6 statements over HTTP, all right and all kept"),
    Case(uses_a_thread, "pass", "6 statements over HTTP, all right and all kept"),
    Case(counts_while_it_signs, "pass", "6 statements over HTTP, all right and all kept"),
    Case(does_both_at_once, "pass", "6 statements over HTTP, all right and all kept"),
]
