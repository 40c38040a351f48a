"""Answers to the exercises, right and wrong ones: for each exercise, `NAME.CASES`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """An answer, and what its check should say: the outcome, and a pattern in the message."""

    answer: Callable[..., Any]
    outcome: str
    says: str
