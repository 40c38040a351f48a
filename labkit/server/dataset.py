"""The table of orders that every lesson works on: how it is made, and whether it is there."""

from typing import Any

from labkit.errors import LabError

ROWS = 200_000

# In one transaction, so that it is there whole or not at all. Nothing random: everybody's
# table is the same, 200 orders for each of 1,000 customers. A table whose comment stands there was
# made to its end: the comment comes last.
COMMENT = "labkit dataset 1"
DATASET = f"""
DROP TABLE IF EXISTS labkit.orders;
CREATE TABLE labkit.orders (
    id integer NOT NULL, customer integer NOT NULL, amount numeric(10,2) NOT NULL,
    note text NOT NULL, created_at timestamp with time zone NOT NULL);
INSERT INTO labkit.orders
    SELECT i, i::bigint * 7919 % 1000, (i::bigint * 104729 % 100000 + 100) / 100.0,
        'order ' || i || ' of batch ' || to_hex(i::bigint * 2654435761 % 4294967296),
        timestamptz '2025-01-01 00:00:00+00' + i * interval '37 seconds'
    FROM generate_series(1, {ROWS}) AS i;
ALTER TABLE labkit.orders ADD CONSTRAINT orders_pkey PRIMARY KEY (id);
CREATE INDEX orders_customer_idx ON labkit.orders (customer);
COMMENT ON TABLE labkit.orders IS '{COMMENT}';
ANALYZE labkit.orders;
"""
SHAPE_QUERY = """
SELECT concat_ws('; ', obj_description(t.oid, 'pg_class'),
    (SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', '
        ORDER BY attnum) FROM pg_attribute
        WHERE attrelid = t.oid AND attnum > 0 AND NOT attisdropped),
    (SELECT string_agg(pg_get_indexdef(indexrelid), ', ' ORDER BY indexrelid::regclass::text)
        FROM pg_index WHERE indrelid = t.oid AND indisvalid))
FROM (SELECT to_regclass('labkit.orders')::oid AS oid) AS t
"""
SHAPE = (
    f"{COMMENT}; id integer, customer integer, amount numeric(10,2), note text, "
    "created_at timestamp with time zone; "
    "CREATE INDEX orders_customer_idx ON labkit.orders USING btree (customer), "
    "CREATE UNIQUE INDEX orders_pkey ON labkit.orders USING btree (id)"
)
# Weighted by id, so that values swapped between rows are noticed too.
CONTENT_QUERY = """
SELECT concat_ws(' ', count(*), sum(id::bigint * customer), sum(id * amount),
    sum(id::bigint * length(note)), trim_scale(sum(id * extract(epoch FROM created_at))))
FROM labkit.orders
"""
OURS_QUERY = "SELECT obj_description(to_regclass($1)::oid, 'pg_class') LIKE 'labkit %'"
CONTENT = "200000 9989943300000 10019766783000.00 593619704552 34812632975627900000"


async def looks_right(connection: Any) -> bool:
    """Whether the table's comment, columns, indexes and number of rows are as they should be."""
    await connection.execute("SET LOCAL quote_all_identifiers = off")  # as in SHAPE
    return bool(
        await connection.fetchval(SHAPE_QUERY) == SHAPE
        and await connection.fetchval("SELECT count(*) FROM labkit.orders") == ROWS
    )


async def refuse_what_is_not_ours(connection: Any, name: str) -> None:
    """Let nothing be dropped but what says in its comment that labkit has made it.

    Raises:
        LabError: Something of that name is there, without such a comment.
    """
    there = await connection.fetchval("SELECT to_regclass($1) IS NOT NULL", name)
    if there and not await connection.fetchval(OURS_QUERY, name):
        raise LabError(
            f"{name} was left as it is: nothing says that labkit has made it. Expected that this "
            "name is free, or has a comment of labkit's. To do: if it is somebody's, rename it, or "
            "work in another database. If it is not (an earlier labkit that was killed left such "
            "tables), drop it."
        )


async def has_dataset(connection: Any) -> bool:
    """Whether a table that looks right holds the right rows, too. Takes ten times as long."""
    return bool(await connection.fetchval(CONTENT_QUERY) == CONTENT)
