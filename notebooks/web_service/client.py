"""The service's clients, for a load from outside: one request a coroutine, over HTTP."""

from collections.abc import Awaitable, Callable
from time import process_time
from typing import Any

import aiohttp
import httpx

SIGN_IN = {"user": "ada", "password": "a password of the laboratory"}
DECLINED = {"order": 7, "card": "5555"}

# What is asked: the method, the path, and what is sent with it.
REQUESTS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "order": ("GET", "/orders/7", None),
    "credit": ("GET", "/customers/42/credit", None),
    "shipping": ("GET", "/orders/7/shipping", None),
    "sign_in": ("POST", "/sessions", SIGN_IN),
    "export": ("GET", "/exports/orders", None),
    "payments": ("POST", "/payments", DECLINED),
}


async def ask(session: aiohttp.ClientSession, name: str) -> bytes:
    """Make one request, and read the whole answer; an answer of 400 or above is an error."""
    method, path, body = REQUESTS[name]
    async with session.request(method, path, json=body) as answer:
        if answer.status >= 400:
            raise aiohttp.ClientError(f"{answer.status} {answer.reason}, for {method} {path}")
        return await answer.read()


async def costs(url: str, times: int = 150) -> dict[str, float]:
    """What a request costs a client in CPU time (ms), for each of two libraries."""
    async with httpx.AsyncClient(trust_env=False) as one, aiohttp.ClientSession() as other:

        async def by_httpx() -> object:
            return (await one.get(url)).content

        async def by_aiohttp() -> object:
            async with other.get(url) as answer:
                return await answer.read()

        return {"httpx": await _cost(by_httpx, times), "aiohttp": await _cost(by_aiohttp, times)}


async def _cost(request: Callable[[], Awaitable[object]], times: int) -> float:
    await request()  # the first one pays for what is needed once
    began = process_time()
    for _ in range(times):
        await request()
    return 1e3 * (process_time() - began) / times
