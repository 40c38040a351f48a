"""Answers to the exercise "verify" of notebook 06."""

import asyncio
import contextlib
from collections import Counter

import numpy as np

from tests.exercises.answers import Case


async def asks_one_after_the_other(price, right):
    wrong = 0
    for order, amount in right.items():
        try:
            wrong += await price(order) != amount
        except Exception:
            wrong += 1
    return wrong


async def counts_errors_only(price, right):
    answers = await asyncio.gather(*(price(order) for order in right), return_exceptions=True)
    return sum(isinstance(answer, Exception) for answer in answers)


async def says_only_whether(price, right):
    try:
        answers = await asyncio.gather(*(price(order) for order in right))
    except Exception:
        return 1
    return int(answers != list(right.values()))


async def goes_in_small_groups(price, right):
    orders, wrong = list(right), 0
    for first in range(0, len(orders), 10):
        group = orders[first : first + 10]
        answers = await asyncio.gather(*map(price, group), return_exceptions=True)
        wrong += sum(a != right[order] for order, a in zip(group, answers, strict=True))
    return wrong


async def asks_for_the_same_order(price, right):
    answers = await asyncio.gather(*(price(7) for _ in right), return_exceptions=True)
    return sum(answer != right[7] for answer in answers)


async def breaks_off_the_others(price, right):
    """And then awaits what it has cancelled."""
    tasks = [asyncio.ensure_future(price(order)) for order in right]
    _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for other in others:
        other.cancel()
    for other in others:
        await other
    return sum(task.result() != right[order] for order, task in zip(right, tasks, strict=True))


async def returns_the_answers(price, right):
    return await asyncio.gather(*(price(order) for order in right), return_exceptions=True)


async def lets_the_error_out(price, right):
    answers = await asyncio.gather(*(price(order) for order in right))
    return sum(a != amount for a, amount in zip(answers, right.values(), strict=True))


async def has_a_mistake_of_its_own(price, right):
    return sum(await price(order) for order in rigth)  # noqa: F821


async def compares_them_all_together(price, right):
    """Each price is there, somewhere: that is not what each caller asked for."""
    answers = await asyncio.gather(*(price(order) for order in right), return_exceptions=True)
    return sum((Counter(right.values()) - Counter(answers)).values())


async def compares_with_itself(price, right):
    """Never looks at `right`. What is wrong in the same way twice is right for it."""
    at_once = await asyncio.gather(*map(price, right), return_exceptions=True)
    return sum([await price(order) != got for order, got in zip(right, at_once, strict=True)])


async def compares_whole_numbers(price, right):
    answers = await asyncio.gather(*map(price, right), return_exceptions=True)
    return sum(
        isinstance(answer, Exception) or round(answer) != round(amount)
        for answer, amount in zip(answers, right.values(), strict=True)
    )


async def counts_with_numpy(price, right):
    answers = await asyncio.gather(*map(price, right), return_exceptions=True)
    wrong = [answer != amount for answer, amount in zip(answers, right.values(), strict=True)]
    return np.sum(wrong)


async def limits_itself(price, right):
    """As one should in a service; but here the crowd is what is tested."""
    gate = asyncio.Semaphore(50)

    async def wrong(order):
        async with gate:
            try:
                return await price(order) != right[order]
            except Exception:
                return True

    return sum(await asyncio.gather(*map(wrong, right)))


async def counts_what_is_slow(price, right):
    async def wrong(order, amount):
        try:
            async with asyncio.timeout(0.002):
                return await price(order) != amount
        except Exception:
            return True

    return sum(await asyncio.gather(*(wrong(*pair) for pair in right.items())))


async def uses_tasks(price, right):
    tasks = {order: asyncio.create_task(price(order)) for order in right}
    await asyncio.wait(tasks.values())
    return sum(
        task.exception() is not None or task.result() != right[order]
        for order, task in tasks.items()
    )


async def wraps_each_call(price, right):
    async def wrong(order, amount):
        try:
            async with asyncio.timeout(1):
                return await price(order) != amount
        except Exception:
            return True

    return sum(await asyncio.gather(*(wrong(*pair) for pair in right.items())))


async def lets_the_first_error_cancel_the_others(price, right):
    """What a TaskGroup does. Those that it cancels may have been right or wrong."""
    tasks, errors = {}, 0
    try:
        async with asyncio.TaskGroup() as group:
            for order in right:
                tasks[order] = group.create_task(price(order))
    except* Exception as them:
        errors = len(them.exceptions)
    got = {order: task for order, task in tasks.items() if not task.cancelled()}
    wrong = [it.exception() is None and it.result() != right[order] for order, it in got.items()]
    return errors + sum(wrong)


async def waits_until_the_first_error(price, right):
    """In the crowd, those that are still under way are the right ones: a guess, and it is true."""
    tasks = {asyncio.create_task(price(order)): order for order in right}
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    return sum(it.exception() is not None or it.result() != right[tasks[it]] for it in done)


async def tries_again(price, right):
    """As a client should. What went wrong before is what the test is to find."""

    async def ask(order):
        for _ in range(3):
            with contextlib.suppress(Exception):
                return await price(order)
        return None

    answers = await asyncio.gather(*map(ask, right))
    return sum(a != amount for a, amount in zip(answers, right.values(), strict=True))


async def has_a_deadline_of_its_own(price, right):
    """Made by hand: it cancels itself."""
    asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
    return await uses_tasks(price, right)


CASES = [
    Case(breaks_off_the_others, "raised", r"shared connection your test raised CancelledError\. "),
    Case(asks_one_after_the_other, "not yet", "one call after the other: at most 1 at once"),
    Case(counts_errors_only, "not yet", r"remembers .* \(0 raised, .* You counted 0\."),
    Case(says_only_whether, "not yet", r"shared connection, \d+ of 200 .* You counted 1\."),
    Case(goes_in_small_groups, "not yet", "at most 10 of 200 calls on their way at once"),
    Case(asks_for_the_same_order, "not yet", "asked for 1 of the 200 orders"),
    Case(compares_them_all_together, "not yet", r"remembers .* returned a wrong .* counted \d\.$"),
    Case(
        counts_what_is_slow,
        "not yet",
        r"on the repaired service, 0 of 200 .* counted \d+\.",
        by_the_clock=True,
    ),
    Case(compares_with_itself, "not yet", "repaired service, your test made 400 calls for 200"),
    Case(
        tries_again, "not yet", r"shared connection, your test made \d+ calls for 200 orders\. Ask"
    ),
    Case(waits_until_the_first_error, "not yet", r"\d+ of the 200 orders had .* test returned, so"),
    Case(compares_whole_numbers, "not yet", r"(cent too dear|on self), .* You counted \d+\."),
    Case(counts_with_numpy, "pass", r"with 200 at once"),
    Case(limits_itself, "not yet", "at most 50 of 200 calls on their way at once"),
    Case(lets_the_first_error_cancel_the_others, "not yet", r"\d+ of the 200 orders had not ended"),
    Case(returns_the_answers, "not yet", r"Expected a whole number of calls, and got \["),
    Case(lets_the_error_out, "raised", r"InterfaceError.* What a call raises is a call that went"),
    Case(has_a_mistake_of_its_own, "raised", r"on the repaired service .* NameError: .*rigth"),
    Case(has_a_deadline_of_its_own, "raised", r"repaired service your test raised CancelledE"),
    Case(uses_tasks, "pass", r"with 200 at once.* a crowd: 160\."),
    Case(wraps_each_call, "pass", r"with 200 at once"),
]
