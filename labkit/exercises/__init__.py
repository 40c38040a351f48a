"""The exercises: check an answer, give a hint, show a solution, keep the learner's progress.

`exercise` is the machinery, `progress` remembers what is solved. What an exercise asks, and how it
judges an answer, stands in `notebooks/exercises/`.
"""

from labkit.exercises.exercise import (
    PATIENCE,
    Exercise,
    Inconclusive,
    NotYet,
    Verdict,
    catalogue,
    find_lessons,
    held_by,
    notebooks,
    source_file,
)

__all__ = [
    "PATIENCE",
    "Exercise",
    "Inconclusive",
    "NotYet",
    "Verdict",
    "catalogue",
    "find_lessons",
    "held_by",
    "notebooks",
    "source_file",
]
