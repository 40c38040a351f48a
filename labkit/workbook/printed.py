"""What is printed: the cheat sheet as a page of A4, and pages as PDF by a browser."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from markdown_it import MarkdownIt

from labkit import exercises

# It is printed as it is seen: no PDF without a browser that is installed. Windows and macOS
# have it at these places; Edge comes with Windows.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "microsoft-edge")
_PLACES = (
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
_SHEET = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>The asyncpg stall workbook: cheat sheet</title>
<style>
@page { size: A4 landscape; margin: 7mm }
body { font: 7.1pt/1.15 Arial, Helvetica, sans-serif; color: #222; background: white; margin: 0;
 width: 283mm }
h1 { font-size: 1.5em; margin: 0 } h2 { font-size: 1.25em; margin: 2pt 0 0 } p { margin: 0 }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .2pt 3pt; border-bottom: .4pt solid #bbb }
ul { columns: 3; list-style: none; margin: 0; padding: 0 } code { font-size: .93em }
</style></head><body><main>BODY</main><script>
// Until it fits on the page (210 - 14 mm), whatever fonts there are; 96 pixels are 25.4 mm.
for (let pt = 7.1; document.body.offsetHeight > 195 * 96 / 25.4 && pt > 5; pt -= 0.1)
 document.body.style.fontSize = pt + "pt"
</script></body></html>
"""


def write_sheet(page: Path) -> None:
    """Write the cheat sheet as a page that prints on one side of A4. On paper, no link is followed.

    Raises:
        OSError: The sheet cannot be read, or the page not be written.
    """
    text = (exercises.notebooks() / "CHEATSHEET.md").read_text("utf-8")
    body = MarkdownIt().enable("table").render(text)
    page.write_text(_SHEET.replace("BODY", re.sub(r'<a href="[^"]*">', "<a>", body)), "utf-8")


def print_pages(pages: Mapping[Path, str]) -> None:
    """Print pages to PDF, and say where they are, or how to do it by hand.

    Args:
        pages: For each PDF that is to be made, the address of its page.
    """
    browser = next(filter(None, map(shutil.which, (*_NAMES, *_PLACES))), None)
    for pdf, page in pages.items():
        pdf.unlink(missing_ok=True)
        if browser:
            _print(browser, page, pdf)
        if pdf.exists():
            print(f"As PDF: {pdf}")
        else:
            print(f"For {pdf.name}, open {page} in Chrome, Chromium or Edge and print it as PDF.")


def _print(browser: str, page: str, pdf: Path) -> None:
    # A profile of its own: a browser that is open already would take the page, and print none.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, "--headless", f"--user-data-dir={profile}", "--no-first-run"]
        command += ["--no-sandbox"]  # as root there is none, and these pages are ours
        command += ["--disable-gpu", "--no-pdf-header-footer", "--virtual-time-budget=10000"]
        with contextlib.suppress(subprocess.TimeoutExpired):
            command += [f"--print-to-pdf={pdf.resolve()}", page]
            subprocess.run(command, capture_output=True, timeout=60)
