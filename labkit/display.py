"""Show something in a notebook, or print it elsewhere; always with a text that says the same."""

from __future__ import annotations

import numbers
import struct
import sys
from collections.abc import Sequence
from html import escape
from typing import Any


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def show(
    text: str,
    *,
    html: str | None = None,
    png: bytes | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Display one output.

    Args:
        text: The whole message in words; what is printed outside a notebook, and read aloud by
            a screen reader in place of a picture.
        html: The same as HTML.
        png: The same as a picture.
        data: Figures for `labkit run`'s scoreboard; kept in the output's metadata, not shown.
    """
    if not in_notebook():
        print(text)
        return
    from IPython.display import display

    bundle: dict[str, Any] = {"text/plain": text}
    metadata: dict[str, Any] = {"labkit": data} if data else {}
    if html is not None:
        bundle["text/html"] = html
    if png is not None:
        bundle["image/png"] = png
        width = struct.unpack(">I", png[16:20])[0] // 2  # charts are drawn for sharp screens
        metadata["image/png"] = {"alt": text, "width": width}
    display(bundle, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]


def as_html(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as HTML: numbers to the right, words to the left.

    Made here, since GitHub drops the <style> by which pandas would align and colour it.
    """

    def cell(value: object) -> str:
        side = "right" if isinstance(value, numbers.Number) else "left"
        text = number(value) if isinstance(value, float) else f"{value}"
        return f'<td style="text-align:{side}">{escape(text)}</td>'

    top = "".join(f'<th scope="col" style="text-align:left">{escape(str(h))}</th>' for h in head)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def number(value: float) -> str:
    """A figure with three digits that mean something."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


class Progress:
    """One line that is rewritten in place, and stays behind as text."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._shown = ""

    def update(self, text: str, data: dict[str, Any] | None = None) -> None:
        """Replace the line."""
        if in_notebook():
            from IPython.display import display

            bundle, metadata = {"text/plain": text}, {"labkit": data} if data else {}
            if self._handle is None:
                show_as: Any = display  # IPython has no types
                self._handle = show_as(bundle, raw=True, metadata=metadata, display_id=True)
            else:
                self._handle.update(bundle, raw=True, metadata=metadata)
        elif sys.stderr.isatty():
            print(f"\r{text:<{len(self._shown)}}", end="", file=sys.stderr, flush=True)
            self._shown = text

    def close(self, text: str, data: dict[str, Any] | None = None) -> None:
        """Leave this line behind."""
        if in_notebook():
            self.update(text, data)
        else:
            print("\r" * bool(self._shown) + f"{text:<{len(self._shown)}}")
