"""A logging handler that keeps warnings in the database. It belongs to pitfall 1 of notebook 07."""

import logging
from contextlib import closing

import psycopg2

# pg_sleep stands for a database that is not next door: 150 ms, the same on every machine.
KEEP = "INSERT INTO labkit.log SELECT %s FROM pg_sleep(0.15)"


class DatabaseHandler(logging.Handler):
    """Writes each record as soon as it is logged. `emit` cannot await: it is a plain function."""

    def __init__(self, dsn: str) -> None:
        super().__init__(logging.WARNING)
        self.dsn = dsn

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        try:
            with closing(psycopg2.connect(self.dsn)) as connection, connection:
                connection.cursor().execute(KEEP, (record.getMessage(),))
        except psycopg2.Error:
            self.handleError(record)
