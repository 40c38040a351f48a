"""What labkit raises on purpose. Notebooks and the command line show the text alone."""


class LabError(Exception):
    """A mistake that could be foreseen: what happened, what was expected, and what to do next."""

    def _render_traceback_(self) -> list[str]:  # which IPython asks for first
        return [f"LabError: {self}"]


class Stopped(KeyboardInterrupt):
    """The stop button was pressed, and what ran has been ended."""

    def _render_traceback_(self) -> list[str]:
        return [f"Stopped: {self}"]
