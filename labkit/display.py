"""Show something in a notebook, or print it elsewhere; always with a text that says the same."""

import base64
import contextlib
import numbers
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from html import escape
from typing import Any

UNATTENDED = "LABKIT_UNATTENDED"  # set for a kernel that `labkit run` executes a notebook in
Put = Callable[[dict[str, Any], dict[str, Any]], object]  # takes an output and its metadata

_instead: ContextVar[Put | None] = ContextVar("labkit_display", default=None)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def attended() -> bool:
    """Whether somebody sits at the notebook, and can press a button in it."""
    return in_notebook() and UNATTENDED not in os.environ


def call_interruptibly(work: Callable[[], object]) -> None:
    """Call it where the stop button reaches it: in the main thread, as a cell.

    JupyterLab handles a widget's messages in another thread: there, this returns at once. Elsewhere
    (VS Code) they wait until this ends: a second press of a button is handled then.
    """

    def interruptible() -> None:
        with contextlib.suppress(KeyboardInterrupt):  # one that comes too late ends no kernel
            usual = signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                work()
            finally:
                signal.signal(signal.SIGINT, usual)

    if threading.current_thread() is threading.main_thread():
        interruptible()
    else:
        sys.modules["IPython"].get_ipython().kernel.io_loop.add_callback(interruptible)


@contextlib.contextmanager
def diverted(put: Put) -> Iterator[None]:
    """Hand each output that is displayed inside the block to a function instead."""
    token = _instead.set(put)
    try:
        yield
    finally:
        _instead.reset(token)


def show(
    text: str, *, html: str = "", png: bytes = b"", data: dict[str, Any] | None = None
) -> None:
    """Display one output: as HTML or a picture, too, if there is one.

    Args:
        text: The whole message in words; what is printed outside a notebook, and read aloud by
            a screen reader in place of a picture.
        html: The same as HTML.
        png: The same as a picture.
        data: Figures for `labkit run`'s scoreboard; kept in the output's metadata, not shown.
    """
    bundle: dict[str, Any] = {"text/plain": text}
    metadata: dict[str, Any] = {"labkit": data} if data else {}
    if html:
        bundle["text/html"] = html
    if png:
        bundle["image/png"] = png
        width = struct.unpack(">I", png[16:20])[0] // 2  # charts are drawn for sharp screens
        metadata["image/png"] = {"alt": text, "width": width}
    put(bundle, metadata)


def put(bundle: dict[str, Any], metadata: dict[str, Any], **how: Any) -> Any:
    """Display a picture or a table as Jupyter has it; outside a notebook, print its words."""
    if instead := _instead.get():
        instead(bundle, metadata)
    elif in_notebook():
        from IPython.display import display

        show_as: Any = display  # IPython has no types
        return show_as(bundle, raw=True, metadata=metadata, **how)
    else:
        print(bundle["text/plain"])
    return None


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


def as_img(bundle: dict[str, Any], metadata: dict[str, Any]) -> str:
    """A picture that was shown, or is kept in a notebook, as HTML: there it keeps its text."""
    look, png = metadata.get("image/png", {}), bundle["image/png"]
    alt, width = escape(bundle.get("text/plain", "")), look.get("width", "")
    if isinstance(png, bytes):
        png = base64.b64encode(png).decode()
    src = f"data:image/png;base64,{png.strip()}"
    return f'<img alt="{alt}" width="{width}" style="max-width: 100%" src="{src}">'


def number(value: float) -> str:
    """A figure with three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


class Progress:
    """One line that is rewritten in place; outside a notebook, only its last text is printed."""

    _handle: Any = None

    def update(self, text: str, *, last: bool = False, data: dict[str, Any] | None = None) -> None:
        """Replace the line; `data` as for `show`."""
        bundle, metadata = {"text/plain": text}, {"labkit": data or {}}
        if self._handle is not None:
            self._handle.update(bundle, raw=True, metadata=metadata)
        elif last or in_notebook() or _instead.get():
            self._handle = put(bundle, metadata, display_id=True)
