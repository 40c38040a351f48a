"""What you add to look inside: a probe, a meter on the pool, and a name for each task.

The five lines are those in `inside` and `name_the_task`; `app.py` calls both. Two endpoints tell
what was seen: `/probe` as JSON, `/metrics` for Prometheus.
"""

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, generate_latest

from labkit.probe import Probe
from labkit.probe.pool import PoolMeter
from web_service.metrics import Inside

THRESHOLD_MS = 20


@contextmanager
def inside(app: FastAPI) -> Iterator[None]:
    """Watch the loop and the pool for as long as the service runs."""
    logging.basicConfig()  # uvicorn sees only to its own loggers
    logging.getLogger("labkit.probe").setLevel(logging.INFO)
    with Probe(THRESHOLD_MS) as app.state.probe, PoolMeter(app.state.pool) as app.state.meter:
        app.state.registry = CollectorRegistry()
        app.state.registry.register(Inside(app.state.probe, app.state.meter))
        yield


async def name_the_task(request: Request) -> None:
    """Name the task of a request by its method and route: it runs in every endpoint's task."""
    task: Any = asyncio.current_task()
    task.set_name(f"{request.method} {request.scope['route'].path}")


router = APIRouter()


@router.get("/probe")
async def read_probe(request: Request) -> dict[str, Any]:
    """What the probe and the meter of this process have seen so far."""
    state = request.app.state
    seen = {"summary": state.probe.summary(), "pool": state.meter.as_dict()}
    return {"pid": os.getpid(), **seen}


@router.get("/metrics")
async def read_metrics(request: Request) -> Response:
    """The same for Prometheus."""
    return Response(generate_latest(request.app.state.registry), media_type="text/plain")
