"""The one error that labkit raises on purpose."""


class LabError(Exception):
    """A mistake that could be foreseen, told in words instead of a traceback.

    Its text says what happened, what was expected, and what to do next. Notebooks and the
    command line show that text alone.
    """

    def _render_traceback_(self) -> list[str]:
        """IPython asks for this before it prints a traceback of its own."""
        return [f"LabError: {self}"]


class Stopped(KeyboardInterrupt):
    """The stop button was pressed, and what ran has been ended."""

    def _render_traceback_(self) -> list[str]:
        return [f"Stopped: {self}"]
