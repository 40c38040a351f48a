"""The web service of notebook 10: FastAPI as people write it, on asyncpg, run by uvicorn.

`app.py` puts it together. Five of its parts are there twice: `sick/` has a fault in each, `sound/`
has it repaired, and the settings say which of them are. `watch.py` is what you would add to look
inside, `process.py` starts the whole as a process and ends it.
"""
