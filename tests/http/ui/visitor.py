"""A visitor of the dashboard: gets pages as a browser does, reads them, fills in their forms and sends them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx

from tests.http.front import calling
from tinyworkflow_core import App
from tinyworkflow_core.http.access_document import document_from_env
from tinyworkflow_core.http.settings import HttpSettings

HOSTILE = (
    "</title></textarea></pre><script>alert('x')</script>\"'><b onclick=x>&lt;{{ 7 * 7 }}\u202e\u0000" + "z" * 10_000
)
"""What somebody may type into any field."""


@dataclass
class Form:
    """A form on a page: where it goes, and what it sends when nothing is typed."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    """Of all fields, also of those that send nothing as they stand."""
    buttons: list[str] = field(default_factory=list)


class Page(HTMLParser):
    """What stands on a page. Reading it checks that nobody's text has become markup."""

    def __init__(self, status: int, html: str) -> None:
        super().__init__()
        self.status = status
        self.html = html
        self.words = ""
        self.title = ""
        self.links: list[str] = []
        self.cells: list[str] = []
        self.forms: list[Form] = []
        self.headings = 0
        self._open: list[str] = []
        self._area = ""
        self._select = ""
        assert "\0" not in html
        self.feed(html)
        self.words = " ".join(self.words.split())
        assert self.headings == 1, "one h1 a page"

    def form(self, action: str) -> Form:
        """The form that goes there."""
        found = [one for one in self.forms if one.action.endswith(action)]
        assert found, f"no form goes to {action}: {[one.action for one in self.forms]}"
        return found[0]

    def has_form(self, action: str) -> bool:
        return any(one.action.endswith(action) for one in self.forms)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on") or name == "style"], (tag, given)
        if tag == "script":
            assert (given["src"] or "").startswith("/ui/static/")
        if tag in ("title", "button", "script"):
            self._open.append(tag)
        self.headings += tag == "h1"
        if tag == "a":
            self.links.append(given["href"] or "")
        if "cell" in (given.get("class") or "").split() and "title" in given:
            self.cells.append(given["title"] or "")
        if tag == "form":
            self.forms.append(Form(given.get("action") or "", given.get("method") or "get"))
        elif self.forms and tag in ("input", "textarea", "select", "option"):
            self._control(tag, given)

    def _control(self, tag: str, given: dict[str, str | None]) -> None:
        form, name = self.forms[-1], given.get("name") or ""
        form.names |= {name} if name else set()
        if tag == "select":
            self._select = name
            form.fields.setdefault(name, "")
        elif tag == "option" and "selected" in given:
            form.fields[self._select] = given.get("value") or ""
        elif tag == "textarea":
            self._area, form.fields[name] = name, ""
        elif tag == "input" and (given.get("type") != "checkbox" or "checked" in given):
            form.fields[name] = given.get("value") or ""

    def handle_endtag(self, tag: str) -> None:
        if self._open and self._open[-1] == tag:
            self._open.pop()
        if tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        assert "script" not in self._open or not data.strip()
        self.words += f" {data}"
        if self._area:
            self.forms[-1].fields[self._area] += data.removeprefix("\n")
        if "title" in self._open:
            self.title += data
        if "button" in self._open and self.forms:
            self.forms[-1].buttons.append(data)


class Visitor:
    """Somebody with a browser."""

    def __init__(self, caller: httpx.AsyncClient, headers: dict[str, str] | None = None) -> None:
        self._caller = caller
        self._headers = headers or {}

    async def see(self, path: str, status: int = 200) -> Page:
        """The page at that path."""
        return self._page(await self._caller.get(path, headers=self._headers), status)

    async def send(self, page: Page, action: str, status: int = 303, **typed: str | None) -> Page:
        """Send the form of the page that goes to `action`; gives the page that follows. None leaves a field out; `__`
        in a name stands for a dot."""
        answer = await self.post(page.form(action), **typed)
        if status == 303:
            assert answer.status_code == 303, answer.text[1200:3000]
            return await self.see(answer.headers["location"])
        return self._page(answer, status)

    async def post(self, form: Form, **typed: str | None) -> httpx.Response:
        """Send the form; gives the answer itself."""
        named = {name.replace("__", "."): value for name, value in typed.items()}
        data = {name: value for name, value in (form.fields | named).items() if value is not None}
        return await self._caller.post(form.action, data=data, headers=self._headers)

    @staticmethod
    def _page(answer: httpx.Response, status: int) -> Page:
        assert answer.status_code == status, answer.text[1200:3000]
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        return Page(answer.status_code, answer.text)


@asynccontextmanager
async def visiting(app: App) -> AsyncIterator[Visitor]:
    """A visitor on the machine of a local emulation, who may do everything."""
    async with calling(app, parts={"ui"}) as caller:
        yield Visitor(caller)


@asynccontextmanager
async def visitors(app: App, **scopes: Any) -> AsyncIterator[dict[str, Visitor]]:
    """Visitors by name, each with a key for these scopes, or with the whole record of a key."""
    keys = [
        {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest()}
        | (granted if isinstance(granted, dict) else {"scopes": list(granted)})
        for name, granted in scopes.items()
    ]
    settings = HttpSettings(access=document_from_env({"TINYWORKFLOW_ACCESS": json.dumps({"keys": keys})}))
    async with calling(app, parts={"ui"}, emulate=False, settings=settings) as caller:
        yield {name: Visitor(caller, {"authorization": f"Bearer {name}"}) for name in scopes}
