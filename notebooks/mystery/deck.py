"""Deals a case: which culprits, among which innocents, under which names, and how often.

Reading this is no help with a case, but it takes away the surprise.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """One function of `blockers` or `decoys`, and the words for it.

    Attributes:
        name: What it is called there.
        what: Of a culprit, what it is and what repairs it; of an innocent, why it is one.
        holds: What it holds up: "loop", "pool", or nothing.
        burst: How many of its requests arrive at once.
        sessions: How many sessions the service must keep in memory for it to matter.
    """

    name: str
    what: str
    holds: str = ""
    burst: int = 1
    sessions: int = 0


BLOCKERS = (
    Card(
        "synchronous_driver",
        "A synchronous driver waits for the server without giving the loop back. "
        "The repair asks through the pool.",
        "loop",
    ),
    Card(
        "sleeping_retry",
        "time.sleep() puts the whole loop to sleep. The repair awaits asyncio.sleep().",
        "loop",
    ),
    Card(
        "embedded_database",
        "SQLite computes on the thread that calls it. It lets go of the interpreter, so the repair "
        "is a thread.",
        "loop",
    ),
    Card(
        "plain_python",
        "A loop without an await, over a million pairs. The repair gives others a turn every "
        "few rows.",
        "loop",
    ),
    Card(
        "large_json",
        "json.dumps of something large is one long call. The repair makes many short ones, and "
        "gives others a turn in between.",
        "loop",
    ),
    Card(
        "slow_hash",
        "A hash that is made slow on purpose, computed on the loop. hashlib lets go of the "
        "interpreter, so the repair is a thread.",
        "loop",
    ),
    Card(
        "backtracking_pattern",
        "A pattern that repeats a repetition tries every way to divide the text before it gives "
        "up. The repair says the same without the inner repetition.",
        "loop",
    ),
    Card(
        "garbage_collection",
        "A full garbage collection looks at every object that the service keeps. The repair leaves "
        "it to Python.",
        "loop",
        sessions=1_000_000,
    ),
    Card(
        "greedy_thread",
        "It left the loop, but json.dumps keeps the interpreter until it is done. The repair "
        "writes in small pieces and lets go of it in between.",
        "loop",
    ),
    Card(
        "crowd",
        "Sixty short callbacks, all ready at once: none is long, together they are. The repair "
        "lets the others in between them.",
        "loop",
    ),
    Card(
        "kept_connection",
        "It keeps its connection while it waits for somebody who is not the database. The repair "
        "gives it back first.",
        "pool",
        burst=10,
    ),
    Card(
        "ungated_crowd",
        "Thirty queries at once take every connection. The repair has a gate with fewer places "
        "than the pool has connections.",
        "pool",
    ),
    Card(
        "kept_lock",
        "A transaction waits with a row locked, and everybody who wants the row waits with a "
        "connection in hand. The repair waits first and locks then.",
        "pool",
        burst=8,
    ),
    Card(
        "second_connection",
        "Who has a connection asks for a second one: five of them, and nobody ever gives any back, "
        "until a timeout ends it. The repair uses the connection that it has.",
        "pool",
        burst=6,
    ),
)

DECOYS = (
    Card("blocking_name", "Only its name blocks: it awaits."),
    Card("long_loop", "The loop is long, and quick."),
    Card("sleep_in_a_thread", "It sleeps on another thread, and so holds nobody."),
    Card("driver_in_a_thread", "The driver waits on another thread."),
    Card("waiting_query", "The query is slow, but it waits by `await`, and keeps one connection."),
    Card("long_wait", "It waits by `await`, and has no connection meanwhile."),
    Card("small_json", "What it turns into JSON is small."),
    Card("quiet_lock", "Hardly anybody else wants its lock."),
    Card("quick_hash", "Its hash takes few rounds."),
    Card("small_database", "What it asks SQLite is small."),
    Card("tame_pattern", "The pattern is dangerous, but not with these texts."),
    Card("young_collection", "It only looks at the youngest objects, which are few."),
    Card("gated_crowd", "It asks through a gate, and leaves connections to the others."),
    Card("short_lock", "It locks a row, and lets it go at once."),
)

NAMES = {
    "audit": ("entry", "monthly", "reconcile", "trace"),
    "catalog": ("preview", "search", "shelf", "suggest"),
    "exports": ("archive", "deliver", "prepare", "render"),
    "notices": ("confirm", "digest", "remind", "send"),
    "pricing": ("quote", "rebate", "recalculate", "voucher"),
    "sessions": ("login", "refresh", "tidy", "verify"),
}

# Requests (or bursts) per second of the three culprits: such that in the first seconds no two of
# them ever come within 80 ms.
RATES = ((1.0, 1.25, 1.85), (1.0, 1.35, 1.8), (1.0, 1.2, 1.85), (1.0, 1.2, 1.55), (1.05, 1.3, 1.65))


@dataclass(frozen=True)
class Part:
    """A function of the service: its name ("pricing.quote"), what it really is, how often asked."""

    name: str
    card: Card
    rate: float


def deal(seed: int) -> list[Part]:
    """Twelve functions in six modules, by name. Three are culprits, each in a module of its own."""
    rng = random.Random(seed)
    by_hold = {hold: [c for c in BLOCKERS if c.holds == hold] for hold in ("pool", "loop")}
    culprits = rng.sample(by_hold["pool"], rng.choice((0, 1, 1, 1)))
    culprits += rng.sample(by_hold["loop"], 3 - len(culprits))
    rates = rng.sample(rng.choice(RATES), 3)
    # While one thread keeps the interpreter, no look from outside can tell it for certain from
    # another that waits in C: so the innocents on threads stay at home.
    greedy = any(card.name == "greedy_thread" for card in culprits)
    innocent = [c for c in DECOYS if not (greedy and c.name.endswith("in_a_thread"))]
    decoys = iter(rng.sample(innocent, 9))
    parts = []
    for number, module in enumerate(rng.sample(sorted(NAMES), 6)):
        for place, name in enumerate(rng.sample(NAMES[module], 2)):
            if number < len(culprits) and place == 0:
                card, rate = culprits[number], rates[number]
            else:
                card, rate = next(decoys), rng.choice((2, 3, 4))
            full = f"{module}.{'blocking_' * card.name.startswith('blocking')}{name}"
            parts.append(Part(full, card, rate))
    return sorted(parts, key=lambda part: part.name)
