"""Stands for the company's collector of logs: it confirms each line, after a while."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import BaseRequestHandler, ThreadingTCPServer

Address = tuple[str, int]


@contextmanager
def collector(seconds: float) -> Iterator[Address]:
    """Collect lines, each on a connection of its own, for as long as the block runs."""

    class Collect(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            time.sleep(seconds)
            self.request.sendall(b"kept")

    with ThreadingTCPServer(("127.0.0.1", 0), Collect) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def send(address: Address, line: str) -> None:
    """Send a line, and wait until it is confirmed."""
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(line.encode())
        connection.recv(4)
