"""The command line: `python -m labkit run`, `start`, `status`, `doctor`, `bundle`, `reset`."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.exercises import CATALOGUE


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0: well; 1: a notebook raised, or a claim did not hold; 2: not done; 130: stopped."""
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console or a file that has no ✔
    # However it is told to end, the kernels are shut down.
    # A shell that starts this in the background has SIGINT ignored; to be ended is to be stopped.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    parser = argparse.ArgumentParser("labkit", description="The asyncpg stall workbook.")
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("doctor", help="say what would keep the workbook from running here")
    run = commands.add_parser("run", help="execute the notebooks and say what they found")
    only: dict[str, Any] = {"nargs": "+", "action": "extend", "default": [], "metavar": "NN"}
    run.add_argument("--only", help="execute these only: 01, for example", **only)
    run.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    start = commands.add_parser("start", help="open the workbook in JupyterLab")
    start.add_argument("--no-browser", action="store_true", help="only print its address")
    start.add_argument("--ip", metavar="ADDRESS", help="listen there: 0.0.0.0 in a container")
    commands.add_parser("status", help="say which exercises are solved")
    reset = commands.add_parser(
        "reset",
        help="remove what the lab made in the database, and leave your progress; asks first",
    )
    reset.add_argument(
        "--progress", nargs="*", metavar="NAME", help="forget these exercises, or all, instead"
    )
    reset.add_argument("--yes", action="store_true", help="do not ask")
    pack = commands.add_parser("bundle", help="pack the workbook for machines without network")
    pack.add_argument("directory", nargs="?", type=Path, default=Path("bundle"))
    pack.add_argument("--platform", help="linux, linux-arm, macos, macos-intel or windows")
    pack.add_argument("--python", metavar="VERSION", help="3.12, for example")
    options = parser.parse_args(arguments)
    try:
        if options.command == "status":
            from labkit.workbook.status import status

            status(CATALOGUE)
            return 0
        if options.command == "reset" and options.progress is not None:
            from labkit.workbook.status import forget

            known = [name for names in CATALOGUE.values() for name in names]
            return forget(options.progress, known, options.yes)
        if options.command == "doctor":
            from labkit.workbook.doctor import doctor

            return doctor()
        if options.command == "reset":
            from labkit.workbook.reset import reset as remove

            return remove(options.yes)
        if options.command == "bundle":
            from labkit.workbook.bundle import bundle

            bundle(options.directory, options.platform, options.python)
            return 0
        if options.command == "start":
            from labkit.workbook.start import start as begin

            return begin(options.no_browser, options.ip)
        from labkit.workbook.run import (
            run as execute,  # not at the top: --help need not wait for it
        )

        return execute(options.only, options.json)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
