"""A connection URL that keeps its password to itself."""

import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from labkit.errors import LabError

UNREADABLE = (
    "DATABASE_URL is not the URL of a PostgreSQL. Expected "
    "postgresql://user:password@host:port/database, with a number for the port (and in PGPORT, if "
    "that is set), each option after ? written as name=value, and any of @ : / ? # %, or a space, "
    "in the password written as %40 %3A %2F %3F %23 %25 %20. To do: set it so, or unset it to work "
    "on labkit's own server."
)
# The methods of a str that give back the whole text, changed a little.
WHOLE = """
__add__ __mul__ __rmul__ casefold center expandtabs ljust lower lstrip removeprefix
removesuffix replace rjust rstrip strip translate upper zfill
"""


class Dsn(str):
    """A connection URL that hides its password from print, f-strings and the end of a cell.

    Drivers, `urllib.parse` and `pickle` get the real characters; `print(dsn)`, an f-string and
    the last line of a cell get `postgresql://lab:***@127.0.0.1:54320/lab`. So do texts made of it
    with `+`, `strip`, `replace` and the like.

    But what takes a `str` to pieces gets the real characters, and shows them: `dsn[:]`, `split`
    and `partition`, `urlsplit(dsn)`, `" ".join([dsn])`, `json.dumps(dsn)`, `dsn.encode()`.
    To write a URL somewhere, write `str(dsn)`.

    Example:
        >>> Dsn("postgresql://lab:secret@localhost/lab")
        'postgresql://lab:***@localhost/lab'
    """

    __slots__ = ()

    def __str__(self) -> str:
        real = self[:]
        if "://" not in real:  # libpq's other form; spaces and quotes may be part of the password
            return re.sub(r"(?is)(password\s*=).*", r"\1***", real)
        shown = re.sub(r"([^?&\s=]+)=([^&\s]*)", _without_password, real)
        # Up to the last @, since people forget to encode one in a password.
        shown = re.sub(r"(?s)//([^:@/]*):.*@", r"//\1:***@", shown)
        # No @ at all, and what should be a port is none.
        return re.sub(r"(?s)//([^:@/]*):(?![\d,:]*([/?,]|$))[^@]+$", r"//\1:***", shown)

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __radd__(self, other: str) -> "Dsn":
        return Dsn(other + self[:])

    def __reduce__(self) -> tuple[type["Dsn"], tuple[str]]:
        return Dsn, (self[:],)  # the oldest pickle protocols would ask __str__


def _without_password(option: re.Match[str]) -> str:
    return f"{option[1]}=***" if unquote(option[1]).lower().endswith("password") else option[0]


def _hiding(method: Callable[..., str]) -> Callable[..., Dsn]:
    return lambda self, *args: Dsn(method(self, *args))


for _name in WHOLE.split():
    setattr(Dsn, _name, _hiding(getattr(str, _name)))


def read(url: str) -> Dsn:
    """Return the URL, if it is one that drivers understand as it was meant.

    Raises:
        LabError: It is not. The text does not quote it, since it may hold a password.
    """
    try:
        parts = urlsplit(url)
        # libpq quotes what it cannot read, and the password with it: its rules, not asyncpg's.
        well = url.startswith(("postgresql://", "postgres://"))
        well = well and not re.search(r"%(?!(?!00)[0-9A-Fa-f]{2})|\s", url)
        user, _, hosts = parts.netloc.rpartition("@")
        # Where there are several hosts, only drivers can read the ports.
        well = well and ("," in hosts or parts.port != 0)
        # An @ / # or ? that was not encoded ends the password too early.
        well = well and "#" not in url and "@" not in user + parts.path
        options = [option for option in parts.query.split("&") if option]
    except ValueError:
        well = False
    if not (well and all(re.fullmatch(r"[\w.%-]+=.*", option) for option in options)):
        raise LabError(UNREADABLE)
    return Dsn(url)
