"""Starts a fleet of instances, asks them all at once, and counts what became of the requests."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from fleet.processes import hear, program, tell
from labkit.errors import LabError


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a fleet.

    Attributes:
        started: How many instances came up.
        failures: What those said that did not.
        right: How many requests got their own answer.
        wrong: How many got an answer to somebody else's question.
        errors: What the others got, and how often.
        missing: How many were not made, because their instance had not come up.
        pooled: Connections in all pools together, at the end.
        backends: Processes of the server that gave the answers.
    """

    started: int
    failures: list[str]
    right: int
    wrong: int
    errors: Counter[str]
    missing: int
    pooled: int
    backends: int

    @property
    def failed(self) -> int:
        """How many requests ended in an error."""
        return self.errors.total()


def run(
    dsn: str,
    *,
    min_size: int,
    max_size: int,
    instances: int = 4,
    clients: int = 5,
    requests: int = 10,
    **pool_options: Any,
) -> Outcome:
    """Start instances one after the other, as a deployment does; then ask them all at once.

    Args:
        dsn: Which server, or which PgBouncer before one.
        min_size: How many connections each instance's pool opens at its start.
        max_size: How many it may have.
        instances: How many processes.
        clients: How many requests each instance has under way at once.
        requests: How many requests each client makes, one after the other.
        pool_options: What else each instance's `asyncpg.create_pool` is given.

    Raises:
        LabError: The sizes do not fit each other, or there would be nobody to ask or to be asked.
    """
    sizes = {"min_size": min_size, "max_size": max_size}
    others = {"instances": instances, "clients": clients, "requests": requests}
    if min(max_size, *others.values()) < 1 or not 0 <= min_size <= max_size:
        given = ", ".join(f"{name}={number}" for name, number in (sizes | others).items())
        raise LabError(
            f"This fleet was not started: {given}. Expected a max_size of 1 or more, a min_size "
            "from 0 to that, and 1 or more of the others."
        )
    reports, failures = [], []
    with ExitStack() as stack:
        fleet = [stack.enter_context(program("fleet.instance")) for _ in range(instances)]
        up = []
        for number, process in enumerate(fleet):
            order = {"number": number, "dsn": dsn, "clients": clients, "requests": requests}
            tell(process, **order, pool_options=sizes | pool_options)
            answer = hear(process)
            failures += [] if answer["started"] else [answer["said"]]
            up += [process] if answer["started"] else []
        for process in up:
            tell(process)
        reports = [hear(process) for process in up]
    answers = sum((Counter(report["answers"]) for report in reports), Counter[str]())
    return Outcome(
        started=len(up),
        failures=failures,
        right=answers.pop("right", 0),
        wrong=answers.pop("wrong", 0),
        errors=answers,
        missing=len(failures) * clients * requests,
        pooled=sum(report["size"] for report in reports),
        backends=len({backend for report in reports for backend in report["backends"]}),
    )
