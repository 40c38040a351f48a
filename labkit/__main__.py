"""The command line: `python -m labkit run`, `start`, `status`, `doctor`, `bundle`, `reset`."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit import exercises, progress, workbook
from labkit.errors import LabError

FIRST = "00_start_here.ipynb"
NO_NEWS = '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}'


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
    pack.add_argument("--platform", help="linux, linux-arm, macos or windows")
    pack.add_argument("--python", metavar="VERSION", help="3.12, for example")
    options = parser.parse_args(arguments)
    try:
        if options.command == "status":
            progress.status(exercises.catalogue())
            return 0
        if options.command == "reset" and options.progress is not None:
            known = [name for names in exercises.catalogue().values() for name in names]
            return progress.forget(options.progress, known, options.yes)
        if options.command == "doctor":
            from labkit.doctor import doctor

            return doctor()
        if options.command == "reset":
            from labkit.reset import reset as remove

            return remove(options.yes)
        if options.command == "bundle":
            from labkit.bundle import bundle

            bundle(options.directory, options.platform, options.python)
            return 0
        if options.command == "start":
            return _start(options.no_browser)
        from labkit.runner import run as execute  # not at the top: --help need not wait for it

        return execute(options.only, options.json)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _start(no_browser: bool) -> int:
    if not ((root := exercises.notebooks()) / FIRST).exists():
        raise LabError(f"There is no {FIRST} in {root}. Expected the workbook: restore it.")
    import zmq
    from jupyterlab.labapp import LabApp

    copy = root.parent / "my-notebooks"
    kept = workbook.update(root, copy)
    print(f"Your own copy of the notebooks: {copy}", flush=True)
    if kept:
        print(f"Kept as you changed them, though the workbook has newer ones: {', '.join(kept)}.")
        print("To have a newer one, rename or delete yours, and start again.", flush=True)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # as encryption: no warnings by kernels
    encryption = "auto" if zmq.has("curve") else "disabled"
    options = [
        f"--ServerApp.root_dir={copy}",
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        "--ServerApp.kernel_spec_manager_class=labkit.runner.OnlyThisPython",
        f"--KernelManager.transport_encryption={encryption}",
        "--ServerApp.answer_yes=True",  # Ctrl-C asks nothing
        *["--no-browser"] * no_browser,
        *["--allow-root"] * (hasattr(os, "geteuid") and os.geteuid() == 0),
    ]
    with tempfile.TemporaryDirectory() as config:  # the one place for JupyterLab's own defaults
        (Path(config) / "labconfig").mkdir()
        (Path(config) / "labconfig" / "default_setting_overrides.json").write_text(NO_NEWS)
        places = [config, *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(places)
        LabApp.launch_instance(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
