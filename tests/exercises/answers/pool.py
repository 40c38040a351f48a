"""Answers to the exercise "pool" of notebook 02."""

import asyncio

import asyncpg

from tests.exercises.answers import Case


async def keeps_the_defaults(dsn):
    return await asyncpg.create_pool(dsn, command_timeout=0.5)


async def grows_under_load(dsn):
    return await asyncpg.create_pool(dsn, min_size=2, max_size=8, command_timeout=0.5)


async def never_gives_up(dsn):
    return await asyncpg.create_pool(dsn, min_size=8, max_size=8)


async def gives_up_after_a_minute(dsn):
    return await asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=60)


async def gives_up_too_soon(dsn):
    return await asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=0.1)


async def forgets_to_await(dsn):
    return asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=0.5)


async def closes_it_too(dsn):
    async with asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=0.5) as pool:
        return pool


async def raises(dsn):
    return await asyncpg.create_pool(dsn, max_size=8, command_timeout=0.5)


async def sets_a_number(dsn):
    """asyncpg wants text there."""
    return await asyncpg.create_pool(
        dsn, min_size=8, max_size=8, server_settings={"statement_timeout": 500}
    )


async def opens_more_later(dsn):
    pool = await asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=0.5)

    async def open_more():
        await asyncio.sleep(0.1)
        for _ in range(2):
            await asyncpg.connect(dsn)

    loop = asyncio.get_running_loop()
    loop.later = asyncio.ensure_future(open_more())
    return pool


async def replaces_them_often(dsn):
    return await asyncpg.create_pool(
        dsn, min_size=8, max_size=8, command_timeout=0.5, max_queries=60
    )


async def opens_a_connection(dsn):
    return await asyncpg.connect(dsn, command_timeout=0.5)


async def grants_itself_more(dsn):
    return await asyncpg.create_pool(dsn, min_size=8, max_size=20, command_timeout=0.5)


async def warms_up_beside(dsn):
    """The service says that it is ready, and then opens its connections."""
    pool = await asyncpg.create_pool(dsn, min_size=1, max_size=8, command_timeout=0.5)
    warming.append(asyncio.create_task(all_at_once(pool)))
    return pool


async def warms_up_by_hand(dsn):
    """Good for five minutes: then it is down to two."""
    pool = await asyncpg.create_pool(dsn, min_size=2, max_size=8, command_timeout=0.5)
    await all_at_once(pool)
    return pool


async def keeps_what_it_has_warmed_up(dsn):
    """Another style: no connection is closed for being idle."""
    pool = await asyncpg.create_pool(
        dsn, min_size=2, max_size=8, command_timeout=0.5, max_inactive_connection_lifetime=0
    )
    await all_at_once(pool)
    return pool


async def warms_up_by_hand_and_lets_go(dsn):
    """Eight, but not for long."""
    pool = await asyncpg.create_pool(
        dsn, min_size=2, max_size=8, command_timeout=0.5, max_inactive_connection_lifetime=0.5
    )
    await all_at_once(pool)
    return pool


async def changes_its_connections(dsn):
    return await asyncpg.create_pool(
        dsn, min_size=8, max_size=8, command_timeout=0.5, max_queries=12
    )


async def never_waits_for_a_row(dsn):
    """The stuck row takes nobody's connection, and nor does any honest wait."""
    return await asyncpg.create_pool(
        dsn, min_size=8, max_size=8, server_settings={"lock_timeout": "1ms"}
    )


async def reads_only(dsn):
    """The stuck row is asked for with FOR UPDATE: here that fails at once, and always."""
    return await asyncpg.create_pool(
        dsn, min_size=8, max_size=8, server_settings={"default_transaction_read_only": "on"}
    )


async def opens_one_for_ever(dsn):
    if not the_only:
        the_only.append(await asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=0.5))
    return the_only[0]


the_only: list[asyncpg.Pool] = []


async def lets_the_server_break_locks(dsn):
    """Another style: only who waits for a lock is broken off, and a slow query never."""
    return await asyncpg.create_pool(
        dsn, min_size=8, max_size=8, server_settings={"lock_timeout": "500ms"}
    )


async def listens_on_a_ninth(dsn):
    pool = await asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=0.5)
    listeners.append(await asyncpg.connect(dsn))
    return pool


async def connects_at_each_acquire(dsn):
    """As many again as the pool has, for a moment each."""

    async def ping(_):
        connection = await asyncpg.connect(dsn)
        await connection.close()

    return await asyncpg.create_pool(dsn, min_size=8, max_size=8, command_timeout=0.5, setup=ping)


async def writes_the_dsn_anew(dsn):
    return await asyncpg.create_pool(f"{dsn}?application_name=shop", min_size=8, max_size=8)


listeners: list[asyncpg.Connection] = []
warming: list[asyncio.Task[None]] = []


async def all_at_once(pool):
    await asyncio.gather(*(pool.fetchval("SELECT pg_sleep(0.05)") for _ in range(8)))


async def lets_the_server_give_up(dsn):
    pool = asyncpg.create_pool(
        dsn, min_size=8, max_size=8, server_settings={"statement_timeout": "500ms"}
    )
    await pool
    return pool


CASES = [
    Case(opens_more_later, "not yet", "[24] connections were opened beside the pool, after"),
    Case(replaces_them_often, "not yet", "closes each connection after 60 queries"),
    Case(keeps_the_defaults, "not yet", r"answered by \d+ connections.* granted 8"),
    Case(grows_under_load, "not yet", "2 connections were open when .* while requests waited"),
    Case(
        never_gives_up,
        "not yet",
        r"no connection was idle for \d+% of the time, and \d+ of",
        by_the_clock=True,
    ),
    Case(
        gives_up_after_a_minute,
        "not yet",
        r"no connection was idle .* had taken the pool",
        by_the_clock=True,
    ),
    Case(
        gives_up_too_soon,
        "not yet",
        r"(of \d+ lookups|2 of 2 honest queries of 0.25 s) failed: TimeoutError",
        by_the_clock=True,
    ),
    Case(forgets_to_await, "not yet", "a pool that was not awaited: nobody can use it"),
    Case(closes_it_too, "not yet", "a pool that is closed: nobody can use it"),
    Case(grants_itself_more, "not yet", r"answered by \d\d connections\. .* granted 8"),
    Case(listens_on_a_ninth, "not yet", "8 connections of its pool were open, and 1 beside it"),
    Case(connects_at_each_acquire, "not yet", r"\d+ connections were open at once: some"),
    Case(writes_the_dsn_anew, "raised", "InvalidPasswordError: .* An f-string hides the password"),
    Case(warms_up_beside, "not yet", "1 connections were open when .* while requests waited"),
    Case(
        warms_up_by_hand_and_lets_go,
        "not yet",
        # The others, where a pause of the machine comes before its second burst, or after it.
        r"nobody has asked for 0\.5 s: of 8, 2 would be left"
        r"|answered by \d+ connections, never"
        r"|8 connections were open when .* others were opened .* Connections were closed that are",
    ),
    Case(
        changes_its_connections,
        "not yet",
        r"and \d+ others were opened in the 2 s after that|answered by \d+ connections, never",
    ),
    Case(
        never_waits_for_a_row,
        "not yet",
        "queries that wait 0.2 s for a row failed: LockNotAvailableError",
        by_the_clock=True,
    ),
    Case(
        reads_only,
        "not yet",
        "queries that wait 0.2 s for a row failed: ReadOnlySQLTransactionError",
        by_the_clock=True,
    ),
    Case(
        opens_one_for_ever,
        "not yet",  # or, checked again, at its first service already
        "for a second service, and returned the pool of the first|a pool that is closed",
    ),
    Case(warms_up_by_hand, "not yet", r"nobody has asked for 300 s: of 8, 2 would be left"),
    Case(keeps_what_it_has_warmed_up, "pass", "8 connections, all warm"),
    Case(lets_the_server_break_locks, "pass", "8 connections, all warm"),
    Case(raises, "raised", "ValueError: min_size is greater than max_size"),
    Case(sets_a_number, "raised", r"^open_pool raised \w+Error: "),
    Case(opens_a_connection, "not yet", "returned a Connection. Expected an asyncpg pool"),
    Case(lets_the_server_give_up, "pass", "8 connections, all warm"),
]
