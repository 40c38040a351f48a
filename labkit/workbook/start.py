"""`python -m labkit start`: the learner's own copy of the notebooks, in JupyterLab."""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Never

from labkit import exercises
from labkit.errors import LabError
from labkit.workbook.copy import update
from labkit.workbook.kernel import refuse_homeless

FIRST = "00_start_here.ipynb"
# JupyterLab's defaults: no news; Markdown is shown as read, for QUIZ.md folds its answers away.
CONFIG = Path(__file__).with_name("jupyter")


def start(no_browser: bool = False, ip: str | None = None) -> Never:
    """Bring the learner's copy up to date, and open it in JupyterLab; end with it.

    Args:
        no_browser: Print JupyterLab's address only.
        ip: The address of this machine that JupyterLab listens on; if there is none, localhost.

    Raises:
        LabError: The workbook is not whole, this machine has no such address, or the user no home.
    """
    refuse_homeless()
    if not ((root := exercises.notebooks()) / FIRST).exists():
        raise LabError(f"There is no {FIRST} in {root}. Expected the workbook: restore it.")
    if ip is not None:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        try:
            with socket.socket(family) as place:
                place.bind((ip, 0))
        except OSError as error:
            raise LabError(
                f"JupyterLab cannot listen on {ip}: {error.strerror}. Expected an address of this "
                "machine. To do: in a container, give 0.0.0.0, which stands for all of them."
            ) from None
    import zmq
    from jupyterlab.labapp import LabApp

    copy = root.parent / "my-notebooks"
    kept = update(root, copy)
    print(f"Your own copy of the notebooks: {copy}", flush=True)
    if kept:
        print(f"Kept as you changed them, though the workbook has newer ones: {', '.join(kept)}.")
        print("To have a newer one, rename or delete yours, and start again.", flush=True)
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # as encryption: no warnings by kernels
    encryption = "auto" if zmq.has("curve") else "disabled"
    options = [
        f"--ServerApp.root_dir={copy}",
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        "--ServerApp.kernel_spec_manager_class=labkit.workbook.kernel.OnlyThisPython",
        f"--KernelManager.transport_encryption={encryption}",
        "--ServerApp.answer_yes=True",  # Ctrl-C asks nothing
        "--ServerApp.allow_root=True",  # as in a container
    ]
    options += ["--no-browser"] * no_browser
    options += [f"--ServerApp.ip={ip}"] if ip else []
    places = [str(CONFIG), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(places)
    if sys.platform != "win32":  # without a terminal, Jupyter leaves files unless it is SIGTERM
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # until Jupyter has its own
        signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
    LabApp.launch_instance(options)
    # At once: of the threads that Jupyter leaves, one may wait until the browser is closed.
    sys.stdout.flush()
    os._exit(0)
