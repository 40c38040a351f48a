"""The exercises: check an answer, give a hint, show a solution, keep the learner's progress.

`exercise` is the machinery, `progress` lists the exercises and remembers which are solved, and
`strays` refuses what asyncpg opened on another loop. What an exercise asks, and how it judges an
answer, stands in `notebooks/exercises/`.
"""

from labkit.exercises.exercise import (
    PATIENCE,
    Exercise,
    NotYet,
    Verdict,
    by_the_clock,
    database,
    find_lessons,
)
from labkit.exercises.progress import CATALOGUE, notebooks
from labkit.exercises.strays import answers_frame

__all__ = [
    "CATALOGUE",
    "PATIENCE",
    "Exercise",
    "NotYet",
    "Verdict",
    "answers_frame",
    "by_the_clock",
    "database",
    "find_lessons",
    "notebooks",
]
