"""Writes the modules of a case from its cards. They are in memory only: no file to peep into."""

from __future__ import annotations

import inspect
import linecache
import re
from collections import defaultdict
from collections.abc import Iterable
from types import ModuleType

from mystery import blockers, decoys, repairs
from mystery.deck import Part


def write(parts: Iterable[Part], folder: str, *, repaired: bool = False) -> dict[str, ModuleType]:
    """The service's modules by name, with the culprits' code, or that of their good twins.

    Args:
        parts: What is in them.
        folder: Where tracebacks say they are.
        repaired: Whether to write the culprits' good twins instead.
    """
    culprits = repairs if repaired else blockers
    bodies: dict[str, str] = defaultdict(str)
    for part in parts:
        card, (module, _, name) = part.card, part.name.partition(".")
        deck = vars(culprits if card.holds else decoys)
        functions = [deck[n] for n in (card.name, f"{card.name}_part") if n in deck]
        code = "\n\n".join(map(inspect.getsource, functions))
        bodies[module] += "\n\n" + re.sub(rf"\b{card.name}(?=_part\b|\b)", name, code)
    return {name: _module(name, f"{folder}/{name}.py", body) for name, body in bodies.items()}


def _module(name: str, path: str, body: str) -> ModuleType:
    """A module in no file, with its source where `inspect` and tracebacks look for it."""
    top = [f'"""{name}: a part of the service."""', "", *_imports(body), ""]
    source = "\n".join(top) + body.rstrip() + "\n"
    module = ModuleType(name)
    module.__file__ = path
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    exec(compile(source, path, "exec"), vars(module))
    return module


def _imports(body: str) -> list[str]:
    """Of the imports of `blockers`, which has all of them, those that are used."""
    words, needed = set(re.findall(r"\w+", body)), []
    for line in inspect.getsource(blockers).splitlines():
        head, is_import, names = line.rpartition("import ")
        used = [name for name in names.split(", ") if name in words]
        if is_import and used and not head.startswith(" "):
            needed.append(f"{head}import {', '.join(used)}")
    return needed
