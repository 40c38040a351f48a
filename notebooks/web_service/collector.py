"""Stands for the company's collector of logs: it confirms each line, after a while."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

Address = tuple[str, int]


@contextmanager
def collector(seconds: float) -> Iterator[Address]:
    """Collect lines, each on a connection of its own, for as long as the block runs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_collect, args=(server, seconds), daemon=True).start()
        yield server.getsockname()


def _collect(server: socket.socket, seconds: float) -> None:
    while True:
        try:
            caller, _ = server.accept()
        except OSError:  # it is closed
            return
        with caller:
            caller.recv(4096)
            time.sleep(seconds)
            caller.sendall(b"kept")


def send(address: Address, line: str) -> None:
    """Send a line, and wait until it is confirmed."""
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(line.encode())
        connection.recv(4)
