"""Who may sign in, and what is known of the password: a hash that is slow on purpose."""

import hashlib

SALT = b"of the laboratory"
COST = {"n": 2**15, "r": 8, "p": 1, "maxmem": 2**26}  # tens of milliseconds, and 32 MiB


def hashed(password: str) -> bytes:
    """Slow on purpose: whoever steals the table should not guess many passwords a second."""
    return hashlib.scrypt(password.encode(), salt=SALT, **COST)


PASSWORDS = {"ada": hashed("a password of the laboratory")}
