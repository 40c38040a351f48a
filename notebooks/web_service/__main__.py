"""Run the service as `uvicorn` does: `python -m web_service --port 8000 [--loop asyncio]`.

It ends when its standard input does, so that nothing is left of it when a notebook is gone.
"""

import sys

import uvicorn

from web_service import process

if __name__ == "__main__":
    process.end_with_its_owner()
    uvicorn.main(["web_service.app:create_app", "--factory", "--no-access-log", *sys.argv[1:]])
