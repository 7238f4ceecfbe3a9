"""Answers: JSON responses, the one way in which this front writes JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response


class Json(Response):
    """`content` as JSON. Never kept by caches, because what it tells about a run is true only now."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        try:
            return text.encode()
        except UnicodeEncodeError:  # lone surrogates: a stored text may hold them, UTF-8 cannot
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()

    def init_headers(self, headers: Any = None) -> None:
        super().init_headers(headers)
        self.headers["Cache-Control"] = "no-store"
        self.headers["X-Content-Type-Options"] = "nosniff"


class ProblemJson(Json):
    """A problem by RFC 9457."""

    media_type = "application/problem+json"
