"""A person at a browser: what they see in a window wide or narrow, light or dark, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response, StorageState

WIDE, NARROW = 1280, 390
HEIGHT = 844

_AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
# All that another scheme of colours can change.
_COLOURS = ["color-contrast", "link-in-text-block"]
_GRAVE = ("serious", "critical")
_UNFOLD = "() => document.querySelectorAll('details:not([open])').forEach(one => { one.open = one.folded = true })"
_FOLD = "() => document.querySelectorAll('details').forEach(one => { if (one.folded) one.open = one.folded = false })"
_WIDER = """() => {
  const page = document.scrollingElement, wide = page.clientWidth;
  if (page.scrollWidth <= wide) return [];
  const isCut = (one) => one !== null && (getComputedStyle(one).overflowX !== "visible" || isCut(one.parentElement));
  return [...document.body.querySelectorAll("*")]
    .filter((one) => one.getBoundingClientRect().right > wide && !isCut(one.parentElement))
    .map((one) => one.outerHTML.slice(0, 150)).concat(`${page.scrollWidth} > ${wide}`);
}"""


class Person:
    """One page of one browser. `complaints`: what was wrong so far; nothing may be. Made by `sit_down`."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        self._expected: set[int] = set()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"error in the page: {error}"))
        page.on("requestfailed", self._failed)
        page.on("request", self._request)
        page.on("response", self._response)

    def expect(self, *statuses: int) -> None:
        """From now on answers of these statuses are as they should be."""
        self._expected |= set(statuses)

    async def begin_anew(self) -> None:
        """Leave the page: no status is expected any more, and nothing was wrong so far."""
        await self.page.goto("about:blank")
        self._expected.clear()
        self.complaints.clear()

    async def go(self, path: str) -> None:
        """Type an address of the dashboard."""
        await self.page.goto(f"{self.address}{path}")

    async def sign_in(self, key: str) -> None:
        """Type the key into the form that is there."""
        await self.page.get_by_label("API key").fill(key)
        await self.page.get_by_role("button", name="Sign in").click()

    # --- looking ----------------------------------------------------------------------------------

    async def look(self, *, thoroughly: bool = False) -> None:
        """Nothing is wrong with the page as it stands, folded or unfolded: nothing sticks out sideways, and axe finds
        nothing serious. It is looked at narrow and dark, and (for its colours) wide and light, which it is after it.

        thoroughly: also narrow and light, and wide and dark, and by every rule when it is wide. A look takes seconds.
        """
        found: dict[str, list[str]] = {}
        for width, scheme, other in ((NARROW, "dark", "light"), (WIDE, "light", "dark")):
            await self.page.set_viewport_size({"width": width, "height": HEIGHT})
            found[f"sticks out at {width} px"] = await self.page.evaluate(_WIDER)
            await self.page.evaluate(_UNFOLD)
            found[f"sticks out at {width} px, unfolded"] = await self.page.evaluate(_WIDER)
            if thoroughly:
                await self._light(other)
                found[f"axe at {width} px, {other}"] = await self._violations(_COLOURS)
            await self._light(scheme)
            every_rule = thoroughly or width == NARROW
            found[f"axe at {width} px, {scheme}"] = await self._violations(None if every_rule else _COLOURS)
            await self.page.evaluate(_FOLD)
        wrong = [f"{look}: {fault}" for look, faults in found.items() for fault in faults]
        assert not wrong, "\n".join([self.page.url, *wrong])

    async def _light(self, scheme: str) -> None:
        await self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")

    async def _violations(self, rules: Iterable[str] | None) -> list[str]:
        """What axe finds, in words. It is put in by the debugger's way, which the page's policy does not bind."""
        if not await self.page.evaluate("() => 'axe' in window"):
            await self.page.evaluate(_AXE)
        options: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}
        if rules is not None:
            options["runOnly"] = {"type": "rule", "values": list(rules)}
        result = await self.page.evaluate("(options) => axe.run(document, options)", options)
        return [
            f"{one['impact']}: {one['id']}: {node['html'][:200]}: {' '.join(node['failureSummary'].split())}"
            for one in result["violations"]
            if one["impact"] in _GRAVE
            for node in one["nodes"]
        ]

    # --- what the browser tells ---------------------------------------------------------------------

    def _console(self, message: ConsoleMessage) -> None:
        if not message.text.startswith("Failed to load resource"):  # the answer itself was looked at
            self.complaints.append(f"on the console: {message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # what was under way when the person went on to another page
            self.complaints.append(f"failed: {request.url}: {request.failure}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(f"{self.address}/"):
            self.complaints.append(f"leaves the host: {request.url}")

    def _response(self, response: Response) -> None:
        if response.status >= 400 and response.status not in self._expected:
            self.complaints.append(f"answered {response.status}: {response.url}")


async def sit_down(browser: Browser, address: str, session: StorageState | None = None) -> Person:
    """A new person, whom nobody knows yet, or who has the cookies of that session."""
    context = await browser.new_context(
        viewport={"width": WIDE, "height": HEIGHT}, reduced_motion="reduce", storage_state=session
    )
    context.set_default_timeout(15_000)
    return Person(await context.new_page(), address)
