"""The service under load: lookups, a hundred a second, and now and then each of its functions."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from functools import partial
from time import perf_counter
from types import ModuleType
from typing import Any

from labkit.probe.pool import PoolMeter
from mystery.deck import Part
from mystery.service import open_service

Steps = dict[str, list[float]]  # for each function, for how long (ms) each step held the loop


def under_load(
    dsn: str,
    parts: Iterable[Part],
    modules: Mapping[str, ModuleType],
    seconds: float,
    steps: Steps,
) -> Callable[[Any], Awaitable[None]]:
    """A scenario for `labkit.measure`; while it runs, it fills `steps`."""
    sessions = max(part.card.sessions for part in parts)

    async def scenario(load: Any) -> None:
        async with open_service(dsn, sessions) as service:
            load.gauge("idle", service.pool.get_idle_size)
            load.offer("lookup", service.lookup, rate=100)
            for part in parts:
                module, _, function = part.name.partition(".")
                call = partial(getattr(modules[module], function), service)
                timed = partial(in_steps, call, steps.setdefault(part.name, []))
                load.offer(part.name, timed, rate=part.rate, burst=part.card.burst)
            with PoolMeter(service.pool, load.span):
                await load.run(seconds=seconds)

    return scenario


@types.coroutine
def in_steps(call: Callable[[], Any], steps: list[float]) -> Generator[Any, None, Any]:
    """Await `call()`, and note for how long each of its steps held the loop."""
    coroutine = call()
    step = partial(coroutine.send, None)
    while True:
        began = perf_counter()
        try:
            waits_for = step()
        except StopIteration as end:
            return end.value
        finally:
            steps.append(1e3 * (perf_counter() - began))
        try:
            yield waits_for
            step = partial(coroutine.send, None)
        except BaseException as error:  # a cancellation: for the coroutine to see
            step = partial(coroutine.throw, error)
