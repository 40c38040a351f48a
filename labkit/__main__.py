"""The command line: `python -m labkit run`, `start`, `status`, `doctor`, `bundle` and so on."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from labkit.errors import LabError


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0: well; 1: a notebook raised, or a claim did not hold; 2: not done; 130: stopped."""
    for stream in sys.stdout, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console or a file that has no ✔
    # SIGTERM, and a terminal that is closed, do what Ctrl-C does: the kernels are shut down. Ctrl-C
    # counts even where the shell has it ignored, as for a program in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    parser = argparse.ArgumentParser("labkit", description="The asyncpg stall workbook.")
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("doctor", help="say what would keep the workbook from running here")
    run = commands.add_parser("run", help="execute the notebooks and say what they found")
    only: dict[str, Any] = {"nargs": "+", "action": "extend", "default": [], "metavar": "NN"}
    run.add_argument("--only", help="execute these only: 01, for example", **only)
    run.add_argument("--json", dest="report", type=Path, metavar="FILE", help="write figures there")
    start = commands.add_parser("start", help="open the workbook in JupyterLab")
    start.add_argument("--no-browser", action="store_true", help="only print its address")
    start.add_argument("--ip", metavar="ADDRESS", help="listen there: 0.0.0.0 in a container")
    status = commands.add_parser("status", help="say which exercises are solved")
    told: dict[str, Any] = {"nargs": "?", "type": Path, "const": Path("-"), "metavar": "FILE"}
    status.add_argument(
        "--json", dest="report", help="as JSON: print it, or write it there", **told
    )
    reset = commands.add_parser(
        "reset",
        help="remove what the lab made in the database, and leave your progress; asks first",
    )
    forget: dict[str, Any] = {"dest": "exercises", "nargs": "*", "metavar": "NAME"}
    reset.add_argument("--progress", help="forget these exercises, or all, instead", **forget)
    reset.add_argument("--yes", action="store_true", help="do not ask")
    pack = commands.add_parser("bundle", help="pack the workbook for machines without network")
    pack.add_argument("directory", nargs="?", type=Path, default=Path("bundle"))
    pack.add_argument("--platform", help="linux, linux-arm, macos, macos-intel or windows")
    pack.add_argument("--python", metavar="VERSION", help="3.12, for example")
    deck = commands.add_parser("slides", help="make slides of the notebooks' charts, and the sheet")
    deck.add_argument("directory", nargs="?", type=Path, default=Path("slides"))
    site = commands.add_parser("pages", help="write the site of the notebooks as committed")
    site.add_argument("directory", nargs="?", type=Path, default=Path("site"))
    known, unknown = parser.parse_known_args(arguments)
    command = (options := vars(known)).pop("command")
    if unknown:  # with this command's usage, which shows what it takes
        commands.choices[command].error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        # Each command is a function in a module of its own, both of its name.
        function = getattr(import_module(f"labkit.workbook.{command}"), command)
        return int(function(**options) or 0)
    except LabError as error:
        said = str(error)
    except ImportError as error:
        todo = import_module("labkit.workbook.doctor").install()
        said = f"{error}. Expected a Python with what requirements.txt lists. To do: {todo}"
    except BrokenPipeError:  # nobody reads on, as `head` does not
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        place = error.filename or "The output, or the place of temporary files (TMPDIR sets it),"
        said = (
            f"{place} cannot be used: {error.strerror or error}. Expected a file or a directory, "
            "whichever the command asks for, in a place that exists, with room, where you may "
            "write. To do: name another one, or make room, or run this as its owner."
        )
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    print(said, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
