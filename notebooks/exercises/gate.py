"""Exercise of notebook 05: a gate with a deadline. This file is meant to be read.

An answer is judged by what becomes of each request in an overload, and of works that fail.
"""

import asyncio
from collections.abc import Awaitable

import asyncpg
from exercises.instruments.ends import DEADLINE_MS, PLACES, Admit, Ends
from legacy.hasty_gate import Overloaded

import labkit as lab
from labkit.exercises import NotYet, by_the_clock, database

HINTS = [
    "Two things happen in turn: waiting for a place, and the work. Which of them may the deadline "
    "break off? Only that one belongs inside `asyncio.timeout()`.",
    "`async with gate:` takes a place, runs the block and gives the place back, all in one. To put "
    "a deadline around the first part alone, use `await gate.acquire()` and `gate.release()`.",
    "`try: async with asyncio.timeout(0.1): await gate.acquire()`, then `except TimeoutError: "
    "raise Overloaded(...) from None`. Below that, outside of both, `try: return await work()` and "
    "`finally: gate.release()`.",
]

SOLUTION = """
async def admit(gate, work):
    try:
        async with asyncio.timeout(0.1):
            await gate.acquire()
    except TimeoutError:
        raise Overloaded("no place within 100 ms: try again later") from None
    try:
        return await work()
    finally:
        gate.release()
"""

WHY = """the deadline bounds the waiting and nothing else. A request is refused before it has cost
anything, or it is served to its end; and `finally` gives the place back, whatever the end is.
When not to use a deadline: where the caller can wait, as this notebook's reminders can. And not in
place of a repair: while the loop is blocked, the gate refuses what could be served in time."""

REPORT = "SELECT pg_sleep(0.02)"
RATE = 1.5 * PLACES / 0.02  # what the gate can serve, and half as much again


class Seen:
    """What the works saw, while the answer let them in."""

    def __init__(self) -> None:
        self.inside = self.most_inside = self.broken_off = self.made = self.begun = 0
        self.wrong: list[object] = []  # answers
        self.namesakes: list[str] = []  # errors that are called as Overloaded, and are not it

    async def report(self, pool: asyncpg.Pool) -> object:
        """A work. What it returns is new each time, so that it cannot be guessed."""
        self.begun += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await pool.fetchval(REPORT)
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        finally:
            self.inside -= 1
        return object()


def check(answer: Admit) -> lab.Verdict:
    """Offer the answer an overload for 0.8 seconds, then works that end badly."""
    dsn = database()
    seen, ends = Seen(), Ends(answer)

    async def your_gate(load: lab.Load) -> None:
        gate = asyncio.Semaphore(PLACES)

        async def report() -> None:
            made: list[object] = []

            async def do_it() -> object:
                made.append(await seen.report(pool))
                return made[0]

            def work() -> Awaitable[object]:
                seen.made += 1
                return do_it()

            try:
                got = await answer(gate, work)
            except Overloaded as refusal:  # or one of a kind that the answer has made of it
                raise Overloaded(*refusal.args) from None
            except Exception as error:
                if type(error).__name__.startswith(Overloaded.__name__):
                    seen.namesakes.append(type(error).__name__)
                raise
            if not made or got is not made[0]:
                seen.wrong.append(got)

        service = asyncpg.create_pool(dsn, min_size=20, max_size=20)
        async with service as pool, asyncio.TaskGroup() as beside:
            beside.create_task(ends.look_at_a_long_work())
            lookup = "SELECT amount FROM labkit.orders WHERE id = 7"
            load.offer("lookup", lambda: pool.fetchval(lookup), rate=50)
            load.offer("report", report, rate=RATE)
            await load.run(seconds=0.8)
            await ends.look(gate)

    run = lab.measure(your_gate)
    _judge_the_overload(run, seen)
    if ends.fault:
        raise NotYet(ends.fault)
    _judge_the_times(run, seen, ends.alone_ms)
    latency, refused = run.latency("report"), run.failed("report")
    return lab.Verdict(
        "pass",
        f"{latency.count} reports served, at a p99 of {latency.p99:.0f} ms; {refused} refused, "
        f"none early; {seen.most_inside} at once, none broken off, no place lost.",
    )


def chart(run: lab.Run) -> None:
    """The reports: served, and refused."""
    lab.timeline(run, offer="report")


def _judge_the_overload(run: lab.Run, seen: Seen) -> None:
    reports = run.requests[run.requests.offer == "report"]
    errors = reports.error.dropna()
    refused = reports[reports.error.fillna("").str.startswith(Overloaded.__name__)]
    if seen.most_inside > PLACES:
        raise NotYet(
            f"{seen.most_inside} works ran at once, with {PLACES} places in the gate. Each has to "
            f"take a place before it begins, and to give back no more than that."
        )
    if seen.broken_off:
        raise NotYet(
            f"{seen.broken_off} of {len(reports)} works were broken off in the middle of their "
            f"query: the deadline ran on when they had their place. What PostgreSQL had done for "
            f"them was lost."
        )
    if seen.namesakes:
        raise NotYet(
            f"{len(seen.namesakes)} of {len(reports)} reports were refused by an "
            f"{seen.namesakes[0]} of your own, and who catches the Overloaded of "
            f"`legacy.hasty_gate` does not catch it. Raise that one, or a kind of it."
        )
    strange = errors[~errors.index.isin(refused.index)]
    if len(strange):
        said = strange.value_counts()
        what = f"{len(strange)} of {len(reports)} reports: {said.index[0]}"
        if said.index[0].startswith("TimeoutError"):
            raise NotYet(
                f"{what}. From this nobody can tell a full service from a slow query: "
                f"expected Overloaded."
            )
        raise lab.LabError(f"{what}. Expected a result, or Overloaded.")
    if seen.wrong:
        first = seen.wrong[0]
        how = " An error is to be raised, not returned." if isinstance(first, Exception) else ""
        raise NotYet(
            f"{len(seen.wrong)} answers were not what `work()` had returned: the first was "
            f"{first!r:.100}.{how}"
        )
    if lost := seen.made - seen.begun:
        raise NotYet(
            f"{lost} works were made by calling `work`, and never began. Call it only with a place."
        )
    if refused.empty:
        raise NotYet(
            f"nobody was refused. The {len(reports)} reports were all served, at a p99 of "
            f"{run.latency('report').p99:.0f} ms, and it would have gone on growing."
        )
    early = refused[refused.service_ms < 0.9 * DEADLINE_MS]
    if len(early):
        raise NotYet(
            f"{len(early)} of {len(reports)} reports were refused too early, the first after "
            f"{early.service_ms.iloc[0]:.1f} ms: they were to wait {DEADLINE_MS} ms for a place, "
            f"so that a short burst is served."
        )


def _judge_the_times(run: lab.Run, seen: Seen, alone_ms: float) -> None:
    if seen.most_inside < PLACES:
        raise by_the_clock(
            run,
            DEADLINE_MS / 2,
            f"{seen.most_inside} works at most ran at once, with {PLACES} places in the gate.",
        )
    if alone_ms > DEADLINE_MS / 2:
        raise by_the_clock(
            run,
            alone_ms / 2,
            f"alone in the gate, a work began only after {alone_ms:.0f} ms. Whoever finds a free "
            f"place is to go in at once.",
            alone_ms / (DEADLINE_MS / 2),
        )
    reports = run.requests[run.requests.offer == "report"]
    refused_after = float(reports.service_ms[reports.error.notna()].median())
    if refused_after > 1.5 * DEADLINE_MS:
        raise by_the_clock(
            run,
            refused_after - DEADLINE_MS,
            f"the refusals came after {refused_after:.0f} ms (median), where {DEADLINE_MS} ms "
            f"were agreed.",
            refused_after / (1.5 * DEADLINE_MS),
        )
