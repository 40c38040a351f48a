"""A thread pool that says what waits for one of its threads. It is yours to take home."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any


class WatchedExecutor(ThreadPoolExecutor):
    """Set it with `loop.set_default_executor(...)`, and look at `waiting` whenever you like."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._names: dict[object, str] = {}  # of what waits; a dict's methods are thread-safe

    @property
    def waiting(self) -> Counter[str]:
        """How many calls of each function wait for a thread."""
        return Counter(self._names.copy().values())

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As every executor's, for `run_in_executor` and `to_thread`."""
        call = object()
        self._names[call] = name_of(fn)

        def start() -> Any:
            self._names.pop(call, None)
            return fn(*args, **kwargs)

        future = super().submit(start)
        future.add_done_callback(lambda _: self._names.pop(call, None))  # cancelled as it waited
        return future


def name_of(fn: Callable[..., Any]) -> str:
    """What a function is called. `asyncio.to_thread` wraps it, to hand on the context."""
    wrapped = fn.args[0] if isinstance(fn, partial) and fn.args else fn
    return str(getattr(wrapped, "__qualname__", wrapped))
