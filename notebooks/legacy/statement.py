"""A customer's statement: the oldest endpoint of the web service. Exercise of notebook 10."""

import hashlib
import socket
from typing import Any

ORDERS = "SELECT id, amount FROM labkit.orders WHERE customer = $1 ORDER BY id"
KEY = b"of the accountant"


class Archive:
    """The archive's client, as its vendor ships it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address

    def keep(self, text: str) -> int:
        """Send a text, wait until it is safe, and return its number."""
        with socket.create_connection(self.address, timeout=5) as connection:
            connection.sendall(text.encode())
            connection.shutdown(socket.SHUT_WR)
            return int(connection.recv(20))


def sign(text: str) -> str:
    """Slow on purpose, so that nobody forges many. (hashlib lets go of the interpreter.)"""
    return hashlib.pbkdf2_hmac("sha256", text.encode(), KEY, 150_000).hex()


async def statement(pool: Any, archive: Archive, customer: int) -> dict[str, Any]:
    """List a customer's orders, sign the list, keep it, and say what it is kept as."""
    rows = await pool.fetch(ORDERS, customer)
    text = "\n".join(f"{row['id']}: {row['amount']}" for row in rows)
    return {"orders": len(rows), "signature": sign(text), "kept_as": archive.keep(text)}
