"""Finding and starting Chromium, which the tests of pages drive. No pytest here.

The browser is that of the machine (Debian's package `chromium`); playwright brings none. TINYWORKFLOW_CHROMIUM names
another one, by name or path.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import Browser

VARIABLE = "TINYWORKFLOW_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--no-sandbox",  # root has none, and CI is root
    "--disable-gpu",
    "--disable-quic",
    # Without these it asks hosts of its own about updates at every start.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class ChromiumMissing(Exception):
    """There is no Chromium on this machine; the message says what to do."""


def find_chromium(environ: Mapping[str, str] = os.environ) -> str:
    """The path of a Chromium. Raises ChromiumMissing, also when TINYWORKFLOW_CHROMIUM names none that is there."""
    given = environ.get(VARIABLE)
    for name in (given,) if given else NAMES:
        if found := shutil.which(name, path=environ.get("PATH", os.defpath)):
            return found
    if given:
        raise ChromiumMissing(f"{VARIABLE} names {given!r}, and there is no such program")
    raise ChromiumMissing(
        f"there is no Chromium here: install one (Debian's package: chromium), or name it in {VARIABLE}"
    )


@asynccontextmanager
async def started(path: str) -> AsyncIterator[Browser]:
    """That Chromium, without a window, ended on the way out. Each of its contexts is a person of their own."""
    from playwright.async_api import async_playwright  # the engine's tests run where it is not installed

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield browser
        finally:
            await browser.close()
