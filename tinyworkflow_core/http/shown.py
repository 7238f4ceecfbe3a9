"""Shown: what a caller sees of the values of a run: the fields that its workflow hides only with the scope `reveal`.

Which fields those are is said by the workflow's definitions (`@workflow(redact=...)`), of all versions together. Of a
workflow that this process does not know nobody can say it, so all of it is hidden.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..engine.history import Event
from ..redaction import EVERYTHING, NOTHING, REDACTED, Redaction
from ..serialization import Codec, Failure
from ..timeline import event_view

if TYPE_CHECKING:
    from starlette.requests import Request

    from ..app import App


class Shown(Codec):
    """A codec for people that hides. Whoever makes a view of a run is given one in place of the App's own codec."""

    def __init__(self, codec: Codec, redaction: Redaction) -> None:
        super().__init__(max_bytes=codec.max_bytes)
        self._codec = codec
        self._redaction = redaction

    @property
    def hides(self) -> bool:
        """Whether there is anything that it hides."""
        return bool(self._redaction)

    def plain(self, text: str) -> Any:
        return self._redaction.hide(self._codec.plain(text))

    def schema(self, text: str | None) -> Any:
        """The JSON schema of a form: it names fields, and holds none."""
        return None if text is None else self._codec.plain(text)

    def plain_text(self, text: str | None) -> str | None:
        return self._codec.plain_text(text)

    def opened(self, failure: Failure) -> Failure:
        opened = self._codec.opened(failure)
        return dataclasses.replace(opened, message=self._redaction.words(opened.message))

    def value(self, value: object) -> Any:
        """A value that was not stored, as plain JSON data."""
        return self.plain(self._codec.encode(value))

    def attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """The attributes of a run."""
        whole = self._redaction.everything
        return {
            name: self._redaction.hide(value) if whole else self._redaction.hide({name: value})[name]
            for name, value in attributes.items()
        }

    def event(self, number: int, event: Event) -> dict[str, Any]:
        """An event. With something hidden also without the digests, by which short values could be guessed."""
        view = event_view(number, event, self)
        if self._redaction and "digest" in view:
            view["digest"] = REDACTED
        return view


class Showing:
    """What one request's caller sees. Without a request: somebody who has a link, and is not known."""

    def __init__(self, request: Request | None, app: App) -> None:
        from .callers import caller_of  # with the server's framework: `Shown` alone is shown on terminals, too
        from .operations import Scope

        self._app = app
        self._reveals = request is not None and caller_of(request).may(Scope.REVEAL)
        self._made: dict[str, Shown] = {}

    def of(self, workflow: str) -> Shown:
        """What they see of that workflow's runs."""
        if workflow not in self._made:
            redaction = NOTHING if self._reveals else self._redaction(workflow)
            self._made[workflow] = Shown(self._app.codec, redaction)
        return self._made[workflow]

    def hides(self, workflow: str) -> bool:
        """Whether anything of that workflow's runs is hidden from them."""
        return not self._reveals and bool(self._redaction(workflow))

    def _redaction(self, workflow: str) -> Redaction:
        found = [one.redaction for one in self._app.registry.workflows() if one.name == workflow]
        if not found:
            return EVERYTHING
        together = NOTHING
        for one in found:
            together |= one
        return together
