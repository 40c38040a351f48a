"""labkit: the helper package of the asyncpg stall workbook."""
