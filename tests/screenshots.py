"""Pictures of the dashboard: `python -m tests.screenshots` makes the two that the README shows, `--all FOLDER` one of
every page in that folder, wide and narrow, light and dark.

It fills an SQLite file with the showcase (tests/showcase), serves it by functions-framework, and looks at it with the
Chromium of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from playwright.async_api import Browser, Page

from tests.chromium import find_chromium, started
from tests.functions.server import ROOT, Server, free_port, server
from tests.showcase.made import Address, make
from tinyworkflow_core.approval_links import LinkSettings, approval_link
from tinyworkflow_core.stores import open_store

README = {"runs": ("dashboard-runs.png", 720), "run-failed": ("dashboard-run.png", 1008)}
"""Page -> the picture's name in docs/images and how much of the page it shows, in pixels."""
IMAGES = ROOT / "docs" / "images"
LARGEST_BYTES = 150_000

_KEY = "showcase-key-not-a-secret"
_LINK_KEY = "showcase-link-key-0123456789abcdef"
_WIDTHS = (1280, 390)
_SCHEMES = ("light", "dark")
_EMPTY: Address = {
    "empty-runs": "/ui/runs",
    "empty-inbox": "/ui/approvals",
    "empty-schedules": "/ui/schedules",
    "empty-activities": "/ui/activities",
    "empty-health": "/ui/health",
}


def _serving(database: Path, port: int, **environ: str) -> Mapping[str, str]:
    return {
        "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{database}",
        "TINYWORKFLOW_LINK_KEYS": _LINK_KEY,
        "TINYWORKFLOW_PUBLIC_URL": f"http://127.0.0.1:{port}",
        **environ,
    }


@asynccontextmanager
async def _served(database: Path, **environ: str) -> AsyncIterator[Server]:
    port = free_port()
    with server("app", _serving(database, port, **environ), port, source="tests/showcase/main.py") as running:
        await asyncio.to_thread(running.wait_until_up)
        yield running


@asynccontextmanager
async def _window(browser: Browser, width: int, scheme: str) -> AsyncIterator[Page]:
    context = await browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
    )
    yield await context.new_page()
    await context.close()


async def for_the_readme(browser: Browser, url: str, pages: Address) -> None:
    """The two pictures. Raises AssertionError for one that is too large."""
    async with _window(browser, 1280, "light") as page:
        for name, (file, height) in README.items():
            await page.set_viewport_size({"width": 1280, "height": height})
            await page.goto(f"{url}{pages[name]}")
            picture = await page.screenshot(path=IMAGES / file)
            assert len(picture) < LARGEST_BYTES, f"{file} has {len(picture)} bytes: show less of the page"
            print(f"docs/images/{file}: {len(picture)} bytes")


async def of_pages(browser: Browser, url: str, pages: Address, folder: Path, only: Iterable[str] = ()) -> None:
    """Each page as a whole, in every width and scheme. Says which are wider than their window."""
    for width in _WIDTHS:
        for scheme in _SCHEMES:
            async with _window(browser, width, scheme) as page:
                for name, path in pages.items():
                    if not only or name in only:
                        await page.goto(path if "://" in path else f"{url}{path}")
                        await _take(page, folder / f"{name}-{width}-{scheme}.png")


async def _take(page: Page, file: Path) -> None:
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    await page.screenshot(path=file, full_page=True)
    print(f"{file.name}{f': {wide} pixels wider than its window' if wide > 0 else ''}")


async def of_nothing(browser: Browser, url: str, folder: Path) -> None:
    """Signing in, and the pages of a store that is empty."""
    for width in _WIDTHS:
        for scheme in _SCHEMES:
            async with _window(browser, width, scheme) as page:
                await page.goto(f"{url}/ui/login")
                await _take(page, folder / f"login-{width}-{scheme}.png")
                await page.get_by_label("API key").fill(_KEY)
                await page.get_by_role("button", name="Sign in").click()
                for name, path in _EMPTY.items():
                    await page.goto(f"{url}{path}")
                    await _take(page, folder / f"{name}-{width}-{scheme}.png")


def more_pages(url: str) -> Address:
    """The approval pages of questions, and what cannot be shown."""
    links = LinkSettings(keys=(_LINK_KEY,), public_url=url)
    return {
        "approval": approval_link("refund-2026-7398", "refund", by="ada@shop.example", settings=links),
        "approval-form": approval_link("contract-northern-paper", "contract", settings=links),
        "problem": "/ui/runs/order-2026-0000",
        "runs-wrong": "/ui/runs?attribute=country&after=yesterday",
    }


async def main(folder: Path | None, only: Iterable[str]) -> None:
    """Take them."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        full, empty = Path(scratch, "full.db"), Path(scratch, "empty.db")
        store = open_store(f"sqlite:///{full}")
        pages = await make(store, now=datetime.now(UTC))
        await store.close()
        async with started(find_chromium()) as browser:
            async with _served(full) as running:
                if folder is None:
                    await for_the_readme(browser, running.url, pages)
                else:
                    await of_pages(browser, running.url, {**pages, **more_pages(running.url)}, folder, only)
            if folder is not None and not only:
                async with _served(empty, TINYWORKFLOW_API_KEYS=_KEY) as running:
                    await of_nothing(browser, running.url, folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description="Pictures of the dashboard.")
    parser.add_argument("--all", metavar="FOLDER", type=Path, help="every page, into this folder")
    parser.add_argument("--only", metavar="PAGE", nargs="*", default=[], help="with --all: these pages alone")
    given = parser.parse_args()
    (given.all or IMAGES).mkdir(parents=True, exist_ok=True)
    asyncio.run(main(given.all, given.only))
