"""What the forms of a run's page do: signal, cancel, terminate, suspend, resume, retry, fork. The inbox decides.

What cannot be done is told on the page of the run, next to the form, with what was typed still in it. A form that is
sent twice counts once: it carries an id that is made with the page.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ...errors import InvalidInputError, RunNotFoundError, SerializationError, StoreUnavailableError
from ...serialization import Codec
from ..bodies import parse_json
from ..operations import Html, Operation, Scope
from ..problems import HttpProblem, is_known, status_of
from ..shown import Showing
from .rendering import go_to, segment
from .run import Refused, RunPages
from .run_view import pretty
from .sessions import read_form

LONGEST_REASON = 1000
LONGEST_NAME = 200

_ONCE = re.compile(r"[0-9a-f]{32}")

Form = Mapping[str, str]
Act = Callable[[Request, str, Form], Awaitable[str]]
"""Carries a form out; returns the run to show after."""


class RunActions:
    """The endpoints, for one App. `pages` shows what was refused."""

    def __init__(self, app: App, max_body_bytes: int, pages: RunPages) -> None:
        self._app = app
        self._client = app.client
        self._limit = max_body_bytes
        self._pages = pages

    def operations(self) -> list[Operation]:
        """All of them, each a POST."""
        return [
            self._post("signal", self._signal, "Send a signal", Scope.SIGNAL),
            self._post("cancel", self._cancel, "Ask the run to end"),
            self._post("terminate", self._terminate, "End the run by force"),
            self._post("suspend", self._suspend, "Put the run aside"),
            self._post("resume", self._resume, "Let it go on"),
            self._post("retry", self._retry, "Have it go on from the point of failure"),
            self._post("fork", self._fork, "Start a new run from its first events"),
        ]

    def _post(self, action: str, act: Act, summary: str, scope: Scope = Scope.OPERATE) -> Operation:
        async def endpoint(request: Request) -> Response:
            run_id: str = request.path_params["run_id"]
            form = dict(await read_form(request, self._limit))
            try:
                shown = await act(request, run_id, form)
            except (RunNotFoundError, StoreUnavailableError):
                raise  # there is no page to tell it on
            except Exception as error:
                if not is_known(error):
                    raise
                return await self._pages.show(request, _refused(action, error, form))
            return go_to(request, f"/ui/runs/{segment(shown)}?done={action}")

        return Operation(
            method="POST",
            path=f"/ui/runs/{{run_id}}/{action}",
            endpoint=endpoint,
            summary=summary,
            scope=scope,
            answers={200: Html},
            described=False,
        )

    # --- what they do -----------------------------------------------------------------------------

    async def _signal(self, request: Request, run_id: str, form: Form) -> str:
        name = form.get("name", "").strip()
        if not name:
            raise InvalidInputError("say the name of the signal")
        if len(name) > LONGEST_NAME:
            raise InvalidInputError(f"the name of a signal has at most {LONGEST_NAME} characters")
        payload = _json(form.get("payload", ""), "the payload")
        await self._client.send_signal(run_id, name, payload, message_id=_once(form))
        return run_id

    async def _cancel(self, request: Request, run_id: str, form: Form) -> str:
        await self._client.cancel_workflow(run_id, _reason(form))
        return run_id

    async def _terminate(self, request: Request, run_id: str, form: Form) -> str:
        if form.get("confirmed") != "yes":
            raise InvalidInputError("tick the box to confirm that the run is to end by force: its code is not asked")
        await self._client.terminate_workflow(run_id, _reason(form))
        return run_id

    async def _suspend(self, request: Request, run_id: str, form: Form) -> str:
        await self._client.suspend_workflow(run_id, _reason(form), message_id=_once(form))
        return run_id

    async def _resume(self, request: Request, run_id: str, form: Form) -> str:
        await self._client.resume_workflow(run_id, message_id=_once(form))
        return run_id

    async def _retry(self, request: Request, run_id: str, form: Form) -> str:
        await self._client.retry_workflow(run_id)
        return run_id

    async def _fork(self, request: Request, run_id: str, form: Form) -> str:
        text = form.get("at_event", "").strip()
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise InvalidInputError("say from which event on: its number, as in the list of events")
        given = form.get("input", "").strip()
        data = _json(given, "the input")
        if data is not None and await self._is_as_before(request, run_id, data):
            data = None  # what was not edited stays what it is, types and all
        return await self._client.fork_workflow(run_id, int(text), data, token=_token(form))

    async def _is_as_before(self, request: Request, run_id: str, data: Any) -> bool:
        state = await self._app.store.load(run_id)
        if state is None:
            return False
        shown: Codec = Showing(request, self._app).of(state.run.name)
        text: str = getattr(state.history[0], "input", "null")
        return pretty(shown.plain(text))[0] == pretty(data)[0]


def _refused(action: str, error: Exception, form: Form) -> Refused:
    errors = [
        f"{'.'.join(str(part) for part in one['loc']) or 'input'}: {one['msg']}" for one in getattr(error, "errors", ())
    ]
    said = error.detail if isinstance(error, HttpProblem) else str(error)
    if isinstance(error, SerializationError):
        said = f"this cannot be stored: {said}"
    return Refused(action=action, said=said, errors=errors, given=form, status=status_of(error))


def _reason(form: Form) -> str | None:
    reason = form.get("reason", "").strip()
    if len(reason) > LONGEST_REASON:
        raise InvalidInputError(f"the reason has at most {LONGEST_REASON} characters")
    return reason or None


def _once(form: Form) -> str | None:
    """The id that makes a form count once; whatever was sent in its place is as if there were none."""
    once = form.get("once", "")
    return f"form-{once}" if _ONCE.fullmatch(once) else None


def _token(form: Form) -> str | None:
    """The same as digits of a run_id, of the length that run_ids have."""
    once = _once(form)
    return None if once is None else once.removeprefix("form-")[:12]


def _json(text: str, what: str) -> Any:
    """What was typed as JSON; nothing is null."""
    if not text.strip():
        return None
    try:
        return parse_json(text.encode("utf-8", "surrogatepass"))
    except HttpProblem as problem:
        said = problem.detail.removeprefix("the body is not JSON: ").removeprefix("the body ")
        hint = 'JSON is a number, "text in quotes", true, false, null, [a list] or {"an": "object"}'
        raise InvalidInputError(f"{what} is not JSON ({said}); {hint}") from None
