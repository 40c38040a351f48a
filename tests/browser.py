"""The browser that is installed, for tests of what a reader sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

BROWSERS = map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))
CHROMIUM = next(filter(None, BROWSERS), None)
in_a_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium (apt install chromium)"
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",  # nothing is asked of anybody
    "--disable-component-update",
]


@contextmanager
def opened() -> Iterator[Browser]:
    """Open it. While it is open, this thread has a running loop: no `asyncio.run` beside it."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def serious(tab: Page, within: str | None = None, rule: str | None = None) -> list[str]:
    """What axe finds that keeps somebody from reading a page, or a part of it."""
    options = {"resultTypes": ["violations"], "preload": False} | (
        {"runOnly": [rule]} if rule else {}
    )
    found = Axe().run(tab, within, options).response["violations"]
    return [
        f"{violation['id']}: {violation['help']}: {node['html']}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]
