"""The command line: `python -m labkit.probe [options] -m MODULE ...`, `attach PID`, `why CAUSE`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import runpy
import signal
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.probe.program import share, watch_every_loop
from labkit.probe.stall import ADVICE
from labkit.probe.summary import Summary

_USAGE = """python -m labkit.probe [--threshold-ms 50] [--json FILE] -m MODULE|SCRIPT [ARGUMENT ...]
       python -m labkit.probe attach PID [--seconds 30] [--threshold-ms 50] [--json FILE]
       python -m labkit.probe why CAUSE"""


def main() -> int:
    """The exit status is the program's."""
    arguments = sys.argv[1:]
    parser = argparse.ArgumentParser("labkit.probe", usage=_USAGE, description=__doc__)
    parser.add_argument("--threshold-ms", type=float, default=50.0, help="what counts as a stall")
    parser.add_argument("--json", type=Path, help="write the summary there, too")
    try:
        if arguments[:1] == ["why"]:
            return why(" ".join(arguments[1:]))
        if arguments[:1] == ["attach"]:
            from labkit.probe.attach import attach

            parser.add_argument("--seconds", type=float, default=30.0, help="for so long")
            parser.add_argument("pid", type=int)
            options = parser.parse_args(arguments[1:])
            _report([attach(options.pid, options.seconds, options.threshold_ms)], options.json)
            return 0
        parser.add_argument("-m", dest="module", action="store_true", help="a module, not a script")
        parser.add_argument("program", nargs=argparse.REMAINDER)
        options = parser.parse_args(arguments)
        if not options.program:
            parser.error("no program was given. Expected: -m MODULE, or a script")
        return run(options)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2


def why(cause: str) -> int:
    """Print what to do about a cause; all of them, if none is given."""
    found = {name: text for name, text in ADVICE.items() if name.startswith(cause)}
    if not found:
        raise LabError(f"There is no cause {cause!r}. Expected one of: {', '.join(ADVICE)}.")
    for name, text in found.items():
        print(f"{name}\n{textwrap.indent(textwrap.fill(text, 78), '  ')}")
    return 0


def run(options: argparse.Namespace) -> int:
    """Run the program as Python would, with every loop watched."""
    with tempfile.TemporaryDirectory(prefix="labkit-probe-") as folder, _ended_well():
        share(options.threshold_ms, folder)
        watch_every_loop(options.threshold_ms, folder)
        name, sys.argv = options.program[0], list(options.program)
        try:
            if options.module:
                sys.path[0] = os.getcwd()
                runpy.run_module(name, run_name="__main__", alter_sys=True)
            else:
                if not Path(name).exists():
                    raise LabError(f"There is no file {name!r}. Expected a script, or -m MODULE.")
                sys.path[0] = str(Path(name).resolve().parent)
                runpy.run_path(name, run_name="__main__")
        finally:
            found = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
            _report(found, options.json)
    return 0


@contextlib.contextmanager
def _ended_well() -> Iterator[None]:
    """Whoever is told to end by SIGTERM still prints the summary."""

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(found: list[dict[str, Any]], file: Path | None) -> None:
    for one in found:
        print(f"\nprocess {one['pid']}:\n{Summary.from_dict(one)}", file=sys.stderr)
    if not found:
        print("labkit.probe: no event loop ran.", file=sys.stderr)
    if file:
        file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
