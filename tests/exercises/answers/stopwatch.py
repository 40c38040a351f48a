"""Answers to the exercise "stopwatch" of notebook 00."""

import asyncio
import contextlib
from time import perf_counter

from tests.exercises.answers import Case


async def asks_back_to_back(ask, rate, seconds):
    times = []
    began = perf_counter()
    while perf_counter() < began + seconds:
        start = perf_counter()
        await ask()
        times.append(1e3 * (perf_counter() - start))
    return times


async def sleeps_between(ask, rate, seconds):
    times = []

    async def one():
        start = perf_counter()
        await ask()
        times.append(1e3 * (perf_counter() - start))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(rate * seconds):
            tasks.create_task(one())
            await asyncio.sleep(1 / rate)
    return times


async def pauses_between(ask, rate, seconds):
    """What most people write first. It takes longer than the check waits for."""
    times = []
    for _ in range(rate * seconds):
        start = perf_counter()
        await ask()
        times.append(1e3 * (perf_counter() - start))
        await asyncio.sleep(1 / rate)
    return times


async def corrects_itself_afterwards(ask, rate, seconds):
    """A closed loop, and for each long answer those that were not asked meanwhile are made up."""
    times = []
    for ms in await asks_back_to_back(ask, rate, seconds):
        while ms > 0:
            times.append(ms)
            ms -= 1e3 / rate
    return times[: rate * seconds]


async def starts_in_groups(ask, rate, seconds):
    times, began = [], perf_counter()

    async def one():
        start = perf_counter()
        await ask()
        times.append(1e3 * (perf_counter() - start))

    async with asyncio.TaskGroup() as tasks:
        for k in range(0, rate * seconds, 20):
            await asyncio.sleep(began + k / rate - perf_counter())
            for _ in range(20):
                tasks.create_task(one())
    return times


async def skips_what_is_overdue(ask, rate, seconds):
    times, began = [], perf_counter()

    async def one(due):
        await ask()
        times.append(1e3 * (perf_counter() - due))

    async with asyncio.TaskGroup() as tasks:
        for k in range(rate * seconds):
            wait = began + k / rate - perf_counter()
            if wait > -0.02:
                await asyncio.sleep(wait)
                tasks.create_task(one(began + k / rate))
    return times


async def starts_the_clock_late(ask, rate, seconds):
    return await on_schedule(ask, rate, seconds, from_the_start=True)


async def asks_all_at_once(ask, rate, seconds):
    async def one():
        start = perf_counter()
        await ask()
        return 1e3 * (perf_counter() - start)

    return await asyncio.gather(*(one() for _ in range(rate * seconds)))


async def waits_but_counts_from_due(ask, rate, seconds):
    times = []
    began = perf_counter()
    for k in range(rate * seconds):
        await asyncio.sleep(began + k / rate - perf_counter())
        await ask()
        times.append(1e3 * (perf_counter() - began - k / rate))
    return times


async def reports_seconds(ask, rate, seconds):
    return [ms / 1e3 for ms in await on_schedule(ask, rate, seconds)]


async def reports_the_p99(ask, rate, seconds):
    return sorted(await on_schedule(ask, rate, seconds))[-3]


async def forgets_the_last(ask, rate, seconds):
    return (await on_schedule(ask, rate, seconds))[:-20]


async def asks_half_as_often(ask, rate, seconds):
    return await on_schedule(ask, rate, seconds / 2)


async def makes_it_up(ask, rate, seconds):
    await on_schedule(ask, rate, seconds)
    return [130] * rate * seconds


async def never_asks(ask, rate, seconds):
    return [20] * rate * seconds


async def raises(ask, rate, seconds):
    return [await ask(k) for k in range(rate * seconds)]


async def on_schedule(ask, rate, seconds, from_the_start=False):
    async def one(due):
        start = perf_counter() if from_the_start else due
        await ask()
        return 1e3 * (perf_counter() - start)

    began, tasks = perf_counter(), []
    for k in range(round(rate * seconds)):
        due = began + k / rate
        await asyncio.sleep(due - perf_counter())
        tasks.append(asyncio.create_task(one(due)))
    return await asyncio.gather(*tasks)


async def does_not_wait_for_its_tasks(ask, rate, seconds):
    """They go on, and write into the list that was returned."""
    times, began = [], perf_counter()

    async def one(due):
        await ask()
        times.append(1e3 * (perf_counter() - due))

    for k in range(rate * seconds):
        await asyncio.sleep(began + k / rate - perf_counter())
        asyncio.create_task(one(began + k / rate))  # noqa: RUF006
    return times


async def has_five_workers(ask, rate, seconds):
    """A closed loop all the same: when five wait, nobody asks."""
    times, began, turns = [], perf_counter(), iter(range(rate * seconds))

    async def work():
        for k in turns:
            due = began + k / rate
            await asyncio.sleep(due - perf_counter())
            await ask()
            times.append(1e3 * (perf_counter() - due))

    await asyncio.gather(*(work() for _ in range(5)))
    return times


async def leaves_out_what_hangs(ask, rate, seconds):
    """A percentile of the survivors."""
    times, began = [], perf_counter()

    async def one(due):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await ask()
                times.append(1e3 * (perf_counter() - due))

    async with asyncio.TaskGroup() as tasks:
        for k in range(rate * seconds):
            due = began + k / rate
            await asyncio.sleep(due - perf_counter())
            tasks.create_task(one(due))
    return times


async def has_no_time_for_what_hangs(ask, rate, seconds):
    """As many as there were requests, and not all of them are times."""
    times = {}

    async def one(k, due):
        times[k] = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await ask()
                times[k] = 1e3 * (perf_counter() - due)

    began = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for k in range(rate * seconds):
            await asyncio.sleep(began + k / rate - perf_counter())
            tasks.create_task(one(k, began + k / rate))
    return list(times.values())


async def makes_up_what_hangs(ask, rate, seconds):
    """As long as it has waited is a number, but not the time of that request."""

    async def one():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ask(), 0.5)

    return await on_schedule(one, rate, seconds)


async def leaves_out_the_first_second(ask, rate, seconds):
    """And has the next one twice, so that the number is right."""
    times = await on_schedule(ask, rate, seconds)
    return times[rate : 2 * rate] + times[rate:]


async def lets_ten_in(ask, rate, seconds):
    """Two fewer than come due in a freeze."""
    gate = asyncio.Semaphore(10)

    async def one():
        async with gate:
            await ask()

    return await on_schedule(one, rate, seconds)


async def begins_half_a_second_later(ask, rate, seconds):
    """Another style: the first request may itself meet a freeze. And it returns no list."""
    await asyncio.sleep(0.5)
    return dict(enumerate(await on_schedule(ask, rate, seconds))).values()


async def sets_alarms(ask, rate, seconds):
    """Another style: callbacks of the loop's own clock, and no loop in the function."""
    loop, times, tasks = asyncio.get_running_loop(), [], []
    began = loop.time()

    def start(due):
        task = asyncio.ensure_future(ask())
        task.add_done_callback(lambda _: times.append(1e3 * (loop.time() - due)))
        tasks.append(task)

    for k in range(rate * seconds):
        loop.call_at(began + k / rate, start, began + k / rate)
    while len(times) < rate * seconds:
        await asyncio.sleep(0.01)
    return times


async def asks_five_at_once(ask, rate, seconds):
    """As many as there should be, each on time by its own schedule."""
    times = []

    async def one(due):
        await ask()
        times.append(1e3 * (perf_counter() - due))

    began = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for k in range(rate * seconds):
            due = began + k // 5 * 5 / rate
            await asyncio.sleep(due - perf_counter())
            tasks.create_task(one(due))
    return times


CASES = [
    Case(
        asks_five_at_once, "not yet", "off the schedule. .* not several at once", by_the_clock=True
    ),
    Case(asks_back_to_back, "not yet", r"made \d+: it asks one after the other. While"),
    Case(
        waits_but_counts_from_due,
        "not yet",
        r"300 requests were due, .* made \d+: .* does not ask\. Users",
    ),
    Case(pauses_between, "not yet", r"in 3 s 300 requests were due, and .* made \d+: it asks"),
    Case(corrects_itself_afterwards, "not yet", r"made \d+: it asks one after the other\."),
    Case(
        sleeps_between,
        "not yet",
        r"in the last second .* \d{3,} ms too late \(median\)",
        by_the_clock=True,
    ),
    Case(starts_in_groups, "not yet", r"asked up to \d{3} ms too early", by_the_clock=True),
    Case(skips_what_is_overdue, "not yet", r"asked [12]\d\d times\. 100 per second for 3 s"),
    Case(asks_all_at_once, "not yet", r"asked up to \d{4} ms too early, and", by_the_clock=True),
    Case(
        starts_the_clock_late,
        "not yet",
        r"(\d+ of your 300 times .* your clock begins|asked on time, but your p(50|95|99) is)",
        by_the_clock=True,
    ),
    Case(
        has_five_workers,
        "not yet",
        # The second, where the machine is slow: five are too few even without a freeze.
        "12 requests came due, and never more than 5 of|in the last second your stopwatch",
        by_the_clock=True,
    ),
    Case(
        leaves_out_what_hangs,
        "not yet",
        r"got 29\d of them: .* Wait for every request, however long it takes",
    ),
    Case(
        has_no_time_for_what_hangs,
        "not yet",
        r"expected 300 finite numbers, and got 29\d: the first that is none is None\.",
    ),
    Case(makes_up_what_hangs, "not yet", "broke off [12] of its requests before they were answ"),
    Case(
        leaves_out_the_first_second,
        "not yet",
        r"(p\d\d|longest but one) is \d+ ms, and the same requests took \d{2,3} ms",
        by_the_clock=True,
    ),
    Case(
        lets_ten_in,
        "not yet",
        "12 requests came due, and never more than 10 of|in the last second your stopwatch",
        by_the_clock=True,
    ),
    Case(
        does_not_wait_for_its_tasks,
        "not yet",
        r"when your stopwatch returned, 2\d\d of its 300 requests had ended: nobody",
    ),
    Case(begins_half_a_second_later, "pass", "300 requests asked, all on schedule"),
    Case(reports_seconds, "not yet", r"your p99 is 0\.\d{3}: these are seconds"),
    Case(
        reports_the_p99,
        "not yet",
        r"expected a list of 300 times in ms, one a request, and got this float: \d",
    ),
    Case(
        forgets_the_last,
        "not yet",
        r"expected a list of 300 times in ms, one a request, and got 2\d\d of them: \[",
    ),
    Case(asks_half_as_often, "not yet", r"asked 150 times\. 100 per second for 3 s are 300"),
    Case(
        makes_it_up,
        "not yet",
        r"your p50 is 130 ms, and the same requests took \d+ ms",
        by_the_clock=True,
    ),
    Case(never_asks, "not yet", "asked 0 times"),
    Case(
        raises,
        "raised",
        r"^your stopwatch raised TypeError: .*ask\(\) takes 0 positional .*\n"
        r"at stopwatch\.py:\d+ in (raises|<listcomp>)",
    ),
    Case(sets_alarms, "pass", "300 requests asked, all on schedule"),
]
