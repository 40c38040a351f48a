"""How often claims lie: `python -m tests.false_verdicts [PAIRS] [quiet|busy|paused|hiccups]`.

Where nothing has changed (the same scenario twice), a claim must never be held; where a figure has
fallen to a tenth and a fifth is claimed, it must never be broken, and on a quiet machine it should
be held in 95 of 100. Both are tried on a quiet machine, with one core kept busy by another process,
while this process is stopped for 50 to 500 ms now and then, and for 5 to 20 ms all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

from labkit import Load, Run, lower, measure
from labkit.measure.claims import Claim, Figure

SECONDS = 1.0
FIGURES: dict[str, Figure] = {
    "p50": lambda run: run.latency().p50,
    "p99": lambda run: run.latency().p99,
    "max": lambda run: run.latency().max,
}
SPIN = "while True: pass"
STOP = """
import os, random, signal, sys, time
while True:
    time.sleep(random.uniform({every} / 5, {every}))
    os.kill(int(sys.argv[1]), signal.SIGSTOP)
    time.sleep(random.uniform({shortest}, {longest}))
    os.kill(int(sys.argv[1]), signal.SIGCONT)
"""


@contextlib.contextmanager
def beside(program: str) -> Iterator[None]:
    """Run another process meanwhile."""
    with subprocess.Popen([sys.executable, "-c", program, str(os.getpid())]) as other:
        try:
            yield
        finally:
            other.kill()


CONDITIONS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "quiet": contextlib.nullcontext,
    "busy": lambda: beside(SPIN),
    "paused": lambda: beside(STOP.format(every=2, shortest=0.05, longest=0.5)),
    "hiccups": lambda: beside(STOP.format(every=0.2, shortest=0.005, longest=0.02)),
}


def compute() -> int:
    return sum(i * i for i in range(40_000))


async def computing() -> None:
    compute()
    await asyncio.sleep(0)


def taking(seconds: float) -> Callable[[], Awaitable[object]]:
    """A request that waits for so long."""
    return lambda: asyncio.sleep(seconds)


def run_of(request: Callable[[], Awaitable[object]]) -> Run:
    async def scenario(load: Load) -> None:
        load.offer("lookup", request, rate=200)
        await load.run(seconds=SECONDS)

    with contextlib.redirect_stdout(None):
        return measure(scenario)


def counted(pairs: list[tuple[Run, Run]], times: float, size: int) -> dict[str, Counter[str]]:
    """The verdicts on so many times lower, for each figure, on groups of so many pairs."""
    words = {True: "held", False: "broken", None: "inconclusive"}
    groups = [pairs[i : i + size] for i in range(0, len(pairs) - size + 1, size)]

    def claim(group: list[tuple[Run, Run]], figure: Figure) -> Claim:
        befores, afters = zip(*group, strict=True)
        return lower("it fell", times, befores, afters, figure)

    return {
        name: Counter(words[claim(group, figure).held] for group in groups)
        for name, figure in FIGURES.items()
    }


EFFECTS = {
    "nothing, waiting": (taking(0.001), taking(0.001), 2),
    "nothing, computing": (computing, computing, 2),
    "a tenth": (taking(0.05), taking(0.005), 5),
}


def main(number: int, conditions: list[str]) -> None:
    """Measure and print."""
    for condition in conditions or CONDITIONS:
        for effect, (before, after, times) in EFFECTS.items():
            with CONDITIONS[condition]():
                pairs = [(run_of(before), run_of(after)) for _ in range(number)]
            for size in (1, 3):
                for name, verdicts in counted(pairs, times, size).items():
                    said = ", ".join(f"{n} {word}" for word, n in verdicts.most_common())
                    print(f"{condition}; {effect}; {name}; of {size}: {said}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, sys.argv[2:])
