"""What nest_asyncio changes. Notebook 00 runs this in a process of its own, plain and patched."""

import asyncio
import json
import logging.handlers
import sys
import time

STALLS = 20


async def nested() -> str:
    """What asyncio.run() does where a loop is running already."""
    inner = asyncio.sleep(0, "works")
    try:
        return asyncio.run(inner)
    except RuntimeError:
        inner.close()
        return "RuntimeError"


async def with_a_deadline() -> str:
    """What asyncio.timeout() does, which asyncpg and most other libraries wait with."""
    try:
        async with asyncio.timeout(1):
            await asyncio.sleep(0)
    except RuntimeError:
        return "RuntimeError"  # on Python 3.14 and later, a patched loop's task is not found
    return "works"


async def stall_the_loop() -> None:
    """Freeze the loop for 60 ms, again and again, with debug mode set to warn from 50 ms on."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.05
    await asyncio.sleep(0)  # the callback that switches debug mode on is not watched yet
    for _ in range(STALLS):
        time.sleep(0.06)
        await asyncio.sleep(0)


def main() -> None:
    """Print the observations as one line of JSON."""
    warnings = logging.handlers.BufferingHandler(capacity=1_000)
    logging.getLogger("asyncio").addHandler(warnings)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    patched = sys.argv[1:] == ["patched"]
    if patched:
        import nest_asyncio

        nest_asyncio.apply(loop)
    observed: dict[str, str | int] = {
        "process": "with nest_asyncio.apply()" if patched else "plain asyncio",
        "asyncio.run() in a running loop": loop.run_until_complete(nested()),
        "asyncio.timeout() in a task": loop.run_until_complete(with_a_deadline()),
        "tasks are written in": "C" if asyncio.Task.__module__ == "_asyncio" else "Python",
    }
    loop.run_until_complete(stall_the_loop())
    slow = [record for record in warnings.buffer if "Executing" in record.getMessage()]
    observed["warnings"] = len(slow)
    loop.close()
    print(json.dumps(observed))


if __name__ == "__main__":
    main()
