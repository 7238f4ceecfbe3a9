"""Bulk: one thing done to several runs that were chosen in a list. First a page says what will happen, then it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ...errors import TinyWorkflowError
from ...records import dataclass
from ...steering import RETRIABLE
from ...store import Run, Status
from ..callers import caller_of, looks_at_caller
from ..operations import Html, Operation, Scope
from ..problems import HttpProblem, is_known
from .rendering import own_path, render
from .sessions import FormData, read_form

MOST_RUNS = 200
_MOST_REASON = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """What can be done to several runs."""

    name: str
    label: str
    will: str
    done: str
    explained: str
    fits: Callable[[Status], bool]
    danger: bool = False


ACTIONS = {
    one.name: one
    for one in (
        Action(
            name="cancel",
            label="Cancel",
            will="is asked to end",
            done="was asked to end",
            explained="Each run is asked to end. Its code may clean up and undo its steps, which can take a while.",
            fits=lambda status: not status.closed,
            danger=True,
        ),
        Action(
            name="retry",
            label="Retry",
            will="goes on from its failure",
            done="goes on",
            explained="Each run goes on from where it failed. Steps that have completed are not run again.",
            fits=lambda status: status in RETRIABLE,
        ),
        Action(
            name="resume",
            label="Resume",
            will="goes on",
            done="was asked to go on",
            explained="Suspended runs go on; parked ones are tried again with the code that runs now.",
            fits=lambda status: status in (Status.SUSPENDED, Status.PARKED),
        ),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A run that was chosen. `run` None: there is none, as far as the caller may know. `said`: what became of it."""

    run_id: str
    run: Run | None
    fits: bool
    said: str = ""


class BulkPages:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            Operation(
                method="POST",
                path=path,
                endpoint=endpoint,
                summary=summary,
                scope=Scope.OPERATE,
                answers={200: Html},
                described=False,
            )
            for path, endpoint, summary in (
                ("/ui/bulk", self.ask, "What will be done to the chosen runs; nothing is done yet"),
                ("/ui/bulk/do", self.do, "Do it"),
            )
        ]

    @looks_at_caller
    async def ask(self, request: Request) -> Response:
        """What will be done to which of them."""
        form = await read_form(request, self._limit)
        action = _action(form)
        chosen = [await self._look(request, run_id, action) for run_id in _run_ids(form)]
        back = own_path(form.get("back", ""))
        return _page(request, action, chosen, back, is_done=False)

    @looks_at_caller
    async def do(self, request: Request) -> Response:
        """Do it, and tell what became of each."""
        form = await read_form(request, self._limit)
        action = _action(form)
        reason = form.get("reason", "").strip()[:_MOST_REASON] or None
        chosen = []
        for run_id in _run_ids(form):
            one = await self._look(request, run_id, action)
            chosen.append(await self._done(one, action, reason) if one.fits else one)
        back = own_path(form.get("back", ""))
        return _page(request, action, chosen, back, is_done=True)

    async def _look(self, request: Request, run_id: str, action: Action) -> Chosen:
        run = await self._app.store.get(run_id)
        if run is None or not caller_of(request).reaches(run.name):
            return Chosen(run_id=run_id, run=None, fits=False, said="there is no such run")
        if not action.fits(run.status):
            return Chosen(run_id=run_id, run=run, fits=False, said=f"left alone: it is {run.status}")
        return Chosen(run_id=run_id, run=run, fits=True)

    async def _done(self, one: Chosen, action: Action, reason: str | None) -> Chosen:
        client = self._app.client
        ways: dict[str, Callable[[], Awaitable[None]]] = {
            "cancel": lambda: client.cancel_workflow(one.run_id, reason),
            "retry": lambda: client.retry_workflow(one.run_id),
            "resume": lambda: client.resume_workflow(one.run_id),
        }
        try:
            await ways[action.name]()
        except TinyWorkflowError as error:
            if not is_known(error):
                raise
            return Chosen(run_id=one.run_id, run=one.run, fits=False, said=str(error))
        return Chosen(run_id=one.run_id, run=one.run, fits=True, said=action.done)


def _action(form: FormData) -> Action:
    found = ACTIONS.get(form.get("action", ""))
    if found is None:
        raise HttpProblem(422, f"choose what to do: {', '.join(ACTIONS)}", kind="invalid-request")
    return found


def _run_ids(form: FormData) -> Sequence[str]:
    found = list(dict.fromkeys(form.getlist("run_id")))
    if not found:
        raise HttpProblem(422, "no run was chosen: tick some in the list first", kind="invalid-request")
    if len(found) > MOST_RUNS:
        raise HttpProblem(422, f"at most {MOST_RUNS} runs at a time", kind="invalid-request")
    return found


def _page(request: Request, action: Action, chosen: Sequence[Chosen], back: str, *, is_done: bool) -> Response:
    count = sum(one.fits for one in chosen)
    return render(request, "bulk.html", action=action, chosen=chosen, back=back, is_done=is_done, count=count)
