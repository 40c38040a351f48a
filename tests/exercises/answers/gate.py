"""Answers to the exercise "gate" of notebook 05."""

import asyncio

import hasty_gate
from overloaded import Overloaded

from tests.exercises.answers import Case


async def is_the_hasty_one(gate, work):
    return await hasty_gate.admit(gate, work)


async def has_no_deadline(gate, work):
    async with gate:
        return await work()


async def has_no_gate(gate, work):
    return await work()


async def refuses_at_once(gate, work):
    if gate.locked():
        raise Overloaded("full")
    async with gate:
        return await work()


async def lets_the_timeout_out(gate, work):
    await asyncio.wait_for(gate.acquire(), 0.1)
    try:
        return await work()
    finally:
        gate.release()


async def loses_places(gate, work):
    try:
        async with asyncio.timeout(0.1):
            await gate.acquire()
    except TimeoutError:
        raise Overloaded("full") from None
    result = await work()
    gate.release()
    return result


async def renames_the_works_timeout(gate, work):
    try:
        async with asyncio.timeout(0.1) as deadline:
            async with gate:
                deadline.reschedule(None)
                return await work()
    except TimeoutError:
        raise Overloaded("full") from None


async def gives_back_too_much(gate, work):
    try:
        async with asyncio.timeout(0.1):
            await gate.acquire()
        return await work()
    except TimeoutError:
        raise Overloaded("full") from None
    finally:
        gate.release()


async def forgets_the_result(gate, work):
    try:
        async with asyncio.timeout(0.1):
            await gate.acquire()
    except TimeoutError:
        raise Overloaded("full") from None
    try:
        await work()
    finally:
        gate.release()


async def raises(gate, work):
    async with gate.aquire():
        return await work()


async def reschedules_the_deadline(gate, work):
    entered = False
    try:
        async with asyncio.timeout(0.1) as deadline, gate:
            entered = True
            deadline.reschedule(None)
            return await work()
    except TimeoutError as error:
        if entered:
            raise
        raise Overloaded("full") from error


async def waits_for_it(gate, work):
    try:
        await asyncio.wait_for(gate.acquire(), timeout=0.1)
    except TimeoutError:
        raise Overloaded from None
    try:
        return await work()
    finally:
        gate.release()


CASES = [
    Case(is_the_hasty_one, "not yet", r"\d+ of 562 works were broken off"),
    Case(has_no_deadline, "not yet", "nobody was refused. The 562 reports were all served"),
    Case(has_no_gate, "not yet", r"\d+ works ran at once, with 5 places"),
    Case(refuses_at_once, "not yet", r"\d+ of 562 reports were refused too early"),
    Case(lets_the_timeout_out, "not yet", r"reports: TimeoutError\. From this nobody can tell"),
    Case(loses_places, "not yet", r"\(two with an error.* and 2 of 5 places are free"),
    Case(renames_the_works_timeout, "not yet", r"made Overloaded\('full'\) of it"),
    Case(gives_back_too_much, "not yet", "ran at once, .* give back no more than that"),
    Case(forgets_the_result, "not yet", r"\d+ answers were not what `work\(\)` had returned"),
    Case(raises, "raised", "562 of 562 reports: AttributeError: .*aquire"),
    Case(reschedules_the_deadline, "pass", r"refused, none early; 5 at once"),
    Case(waits_for_it, "pass", r"refused, none early; 5 at once"),
]
