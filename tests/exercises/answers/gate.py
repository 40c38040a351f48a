"""Answers to the exercise "gate" of notebook 05."""

import asyncio

import asyncpg
from legacy import hasty_gate
from legacy.hasty_gate import Overloaded

from tests.exercises.answers import Case


async def is_the_hasty_one(gate, work):
    return await hasty_gate.admit(gate, work)


async def has_no_deadline(gate, work):
    async with gate:
        return await work()


async def works_again(gate, work):
    """After an error: it may have been a mishap."""

    async def twice():
        try:
            return await work()
        except Exception:
            return await work()

    return await reschedules_the_deadline(gate, twice)


async def limits_the_work(gate, work):
    """Longer than any work of the overload takes."""
    return await waits_for_it(gate, lambda: asyncio.wait_for(work(), 1))


async def hides_the_databases_errors(gate, work):
    try:
        return await waits_for_it(gate, work)
    except asyncpg.PostgresError:
        raise Overloaded("try again") from None


async def makes_none_of_a_mishap(gate, work):
    try:
        return await waits_for_it(gate, work)
    except LookupError:
        return None


async def makes_none_of_nothing(gate, work):
    return (await reschedules_the_deadline(gate, work)) or None


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


async def waits_beside(gate, work):
    """Who goes away while waiting leaves the waiter behind, which takes a place for nobody."""
    waiter = asyncio.ensure_future(gate.acquire())
    done, _ = await asyncio.wait({waiter}, timeout=0.1)
    if not done:
        waiter.cancel()
        raise Overloaded("full")
    try:
        return await work()
    finally:
        gate.release()


async def forgets_the_waiter_it_refuses(gate, work):
    """Who is refused leaves the waiter behind, too."""
    waiter = asyncio.ensure_future(gate.acquire())
    try:
        done, _ = await asyncio.wait({waiter}, timeout=0.1)
    except asyncio.CancelledError:
        waiter.cancel()
        raise
    if not done:
        raise Overloaded("full")
    try:
        return await work()
    finally:
        gate.release()


async def sleeps_and_then_looks(gate, work):
    """Everybody waits 100 ms, also in a gate that is empty."""
    await asyncio.sleep(0.1)
    if gate.locked():
        raise Overloaded("full")
    async with gate:
        return await work()


class Busy(Overloaded):
    """Another style: a kind of its own."""


async def refuses_in_its_own_words(gate, work):
    try:
        await asyncio.wait_for(gate.acquire(), 0.1)
    except TimeoutError:
        raise Busy("full", "Retry-After: 1") from None
    try:
        return await work()
    finally:
        gate.release()


async def shields_the_work(gate, work):
    """The deadline no longer breaks the work off; but its place is given back while it goes on."""
    try:
        async with asyncio.timeout(0.1), gate:
            return await asyncio.shield(work())
    except TimeoutError:
        raise Overloaded("full") from None


async def enter(gate):
    try:
        await asyncio.wait_for(gate.acquire(), 0.1)
    except TimeoutError:
        raise Overloaded("full") from None


async def shields_the_work_and_keeps_its_place(gate, work):
    """Another style: a work is not broken off when its caller goes, and keeps its place."""
    await enter(gate)
    task = asyncio.ensure_future(work())
    task.add_done_callback(lambda _: gate.release())
    return await asyncio.shield(task)


async def shields_the_work_and_gives_its_place_back(gate, work):
    """Its caller goes away, and the next one is let in beside it."""
    await enter(gate)
    try:
        return await asyncio.shield(work())
    finally:
        gate.release()


async def shields_the_work_and_waits_for_it(gate, work):
    """Another style: whoever is cancelled goes away when the work is over."""
    await enter(gate)
    task = asyncio.ensure_future(work())
    try:
        return await asyncio.shield(task)
    finally:
        await asyncio.wait([task])
        gate.release()


async def cancels_the_work_as_a_task(gate, work):
    """Another style: the work is a task, which is told to end, and its place is given back."""
    await enter(gate)
    task = asyncio.ensure_future(work())
    try:
        await asyncio.wait([task])
        return task.result()
    finally:
        task.cancel()
        gate.release()


gates: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}  # one belongs to one loop


async def has_a_gate_of_its_own(gate, work):
    """As large as the one that it is given; but others use that one, too."""
    own = gates.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(5))
    return await waits_for_it(own, work)


async def takes_the_cancellation_for_the_deadline(gate, work):
    try:
        await asyncio.wait_for(gate.acquire(), 0.1)
    except (TimeoutError, asyncio.CancelledError):
        raise Overloaded("full") from None
    try:
        return await work()
    finally:
        gate.release()


async def tries_twice(gate, work):
    for _ in range(2):
        try:
            async with asyncio.timeout(0.1):
                await gate.acquire()
            break
        except TimeoutError:
            pass
    else:
        raise Overloaded("full")
    try:
        return await work()
    finally:
        gate.release()


async def asks_again_and_again(gate, work):
    """No timeout at all: whoever finds the gate open goes in. Not fair, but right."""
    until = asyncio.get_running_loop().time() + 0.1
    while gate.locked():
        if asyncio.get_running_loop().time() > until:
            raise Overloaded("full")
        await asyncio.sleep(0.002)
    async with gate:
        return await work()


class OverloadedError(Exception):
    """Has the name, nearly, and is not what callers catch."""


async def has_an_error_of_its_own(gate, work):
    try:
        return await waits_for_it(gate, work)
    except Overloaded:
        raise OverloadedError("full") from None


async def makes_the_work_first(gate, work):
    """Who is refused has made a coroutine that nobody awaits."""
    it = work()
    try:
        async with asyncio.timeout(0.1):
            await gate.acquire()
    except TimeoutError:
        it.close()
        raise Overloaded("full") from None
    try:
        return await it
    finally:
        gate.release()


CASES = [
    Case(works_again, "not yet", "four works raised an error, and your function began [78]"),
    Case(limits_the_work, "not yet", r"a work of 2 s, alone .* made TimeoutError\(\) of it"),
    Case(hides_the_databases_errors, "not yet", r"DeadlockDetectedError.* made Overloaded\('try"),
    Case(makes_none_of_a_mishap, "not yet", r"raised MishapError.* your function made None of it"),
    Case(makes_none_of_nothing, "not yet", "returned '', and your function made None of it"),
    Case(
        makes_the_work_first, "not yet", r"\d+ works were made by calling `work`, and never began"
    ),
    Case(is_the_hasty_one, "not yet", r"\d+ of 300 works were broken off"),
    Case(has_no_deadline, "not yet", "nobody was refused. The 300 reports were all served"),
    Case(has_no_gate, "not yet", r"\d+ works ran at once, with 5 places .* before it begins"),
    Case(refuses_at_once, "not yet", r"\d+ of 300 reports were refused too early"),
    Case(lets_the_timeout_out, "not yet", r"reports: TimeoutError\. From this nobody can tell"),
    Case(loses_places, "not yet", r"\(four with an error.* and 0 of 5 places are free"),
    Case(renames_the_works_timeout, "not yet", r"made Overloaded\('full'\) of it"),
    Case(gives_back_too_much, "not yet", "ran at once, .* give back no more than that"),
    Case(has_an_error_of_its_own, "not yet", "refused by an OverloadedError of your own, and who"),
    Case(forgets_the_result, "not yet", r"\d+ answers were not what `work\(\)` had returned"),
    Case(waits_beside, "not yet", "went away while it waited .* and afterwards 4 of 5 places"),
    Case(forgets_the_waiter_it_refuses, "not yet", "was over, and 0 of 5 places were free"),
    Case(takes_the_cancellation_for_the_deadline, "not yet", r"ended with Overloaded\('full'\)"),
    Case(sleeps_and_then_looks, "not yet", r"work began only after \d{3} ms", by_the_clock=True),
    Case(refuses_in_its_own_words, "pass", r"refused, none early; 5 at once"),
    Case(shields_the_work_and_keeps_its_place, "pass", r"refused, none early; 5 at once"),
    Case(shields_the_work_and_waits_for_it, "pass", r"refused, none early; 5 at once"),
    Case(cancels_the_work_as_a_task, "pass", r"refused, none early; 5 at once"),
    Case(shields_the_work, "not yet", "ran at once, with 5 places"),
    Case(
        shields_the_work_and_gives_its_place_back,
        "not yet",
        "the work still ran, and its place was already free",
    ),
    Case(has_a_gate_of_its_own, "not yet", "with no place free in `gate`, a work began"),
    Case(
        tries_twice,
        "not yet",
        r"refusals came after \d{3} ms \(median\), where 100 ms",
        by_the_clock=True,
    ),
    Case(asks_again_and_again, "pass", r"refused, none early; 5 at once"),
    Case(raises, "raised", "300 of 300 reports: AttributeError: .*aquire"),
    Case(reschedules_the_deadline, "pass", r"refused, none early; 5 at once"),
    Case(waits_for_it, "pass", r"refused, none early; 5 at once"),
]
