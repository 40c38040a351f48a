"""Execute a notebook in a kernel of its own, on the Python that runs this program."""

import asyncio
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode
from traitlets import default

from labkit.display import UNATTENDED
from labkit.errors import LabError


class OnlyThisPython(KernelSpecManager):
    """Knows one kernel, "python3", and that is the Python which runs this program.

    A kernel of that name in the user's own directories would otherwise win, and lack labkit.
    """

    @default("kernel_dirs")
    def _none(self) -> list[str]:
        return []  # which leaves ipykernel's own


def refuse_homeless(writes: bool = True) -> None:
    """Refuse a user for whom a kernel would not start, or JupyterLab, which writes to the home.

    Raises:
        LabError: The user has no home directory, or none that can be written to.
    """
    try:
        Path.home()
        if writes:
            place = Path(os.environ.get("JUPYTER_RUNTIME_DIR") or OnlyThisPython().data_dir)
            place.mkdir(0o700, parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
    except (OSError, RuntimeError) as error:
        raise LabError(
            f"This user has no home directory to write to: {str(error).rstrip('.')}. Expected "
            "one, as Jupyter keeps files there. To do: set HOME to a directory where you may write."
        ) from None


class _Loop(asyncio.SelectorEventLoop):  # on Windows, too: ZeroMQ cannot use the default there
    def add_signal_handler(self, *_: Any) -> None:  # type: ignore[override]
        raise NotImplementedError  # nbclient's would take Ctrl-C away from asyncio.Runner


def execute(
    notebook: NotebookNode,
    directory: Path,
    log: Any = subprocess.DEVNULL,
    kill: bool = False,
    **options: Any,
) -> None:
    """Execute a notebook; its outputs are then in it.

    Args:
        notebook: What to execute.
        directory: Where its cells work.
        log: A file for what the kernel says of itself, outside of any cell.
        kill: End the kernel at once, with nothing cleaned up, instead of within some seconds.
        options: Of nbclient's NotebookClient: `timeout`, for example, in seconds for each cell.

    Raises:
        LabError: A cell raised one; if it raised something else, CellExecutionError.
        CellTimeoutError: A cell took too long.
        RuntimeError: The kernel did not start, or died.
    """
    kernel = AsyncKernelManager(kernel_spec_manager=OnlyThisPython())
    resources = {"metadata": {"path": directory}}

    async def work() -> None:
        # Not by nbclient, which leaves a traceback at exit where a kernel does not start.
        env, logs = os.environ | {UNATTENDED: "yes"}, {"stdout": log, "stderr": log}
        memory = ["--HistoryManager.hist_file=:memory:"]  # the user's own is left as it is
        await kernel.start_kernel(cwd=directory, env=env, extra_arguments=memory, **logs)
        client = NotebookClient(notebook, kernel, resources=resources, **options)
        client.kc = kernel.client()
        client.kc.start_channels()
        client.kc.allow_stdin = False
        try:
            await client.kc.wait_for_ready(client.startup_timeout)
            # Both have read it, and its key. Were this process killed, nobody would delete it.
            kernel.cleanup_connection_file()
            await client.async_execute()
        except CellExecutionError as error:
            if error.ename != "LabError":
                raise
            raise LabError(error.evalue) from None
        except DeadKernelError:
            # Also how nbclient passes on that it was cancelled.
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError from None
            raise
        finally:
            client.kc.stop_channels()
            await kernel.shutdown_kernel(now=kill)

    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(work())
