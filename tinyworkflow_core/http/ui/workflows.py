"""Workflows on pages: what can be started here, its versions and source, and a form made from the schema of its input.

The source is shown to those who may see runs, and only where it is the one that runs: not when the file has changed
since it was loaded, or is not there. Whether an input fits is said by the workflow's own definition.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic.errors import PydanticUserError
from starlette.requests import Request
from starlette.responses import Response

from ...app import App
from ...clock import fresh_id
from ...definitions import WorkflowDefinition
from ...errors import (
    IdempotencyConflictError,
    InvalidInputError,
    PayloadTooLargeError,
    SerializationError,
    UnknownWorkflowError,
)
from ...store import RunQuery
from ..bodies import parse_json
from ..callers import caller_of, looks_at_caller
from ..form_fields import FormField, fields_of, read_data
from ..operations import Html, Operation, Scope
from ..problems import HttpProblem
from ..shown import Showing
from ..views import run_summary
from .filling import filled_form, invalid
from .rendering import go_to, render, segment
from .sessions import read_form

LATEST_RUNS = 10
LONGEST_SOURCE = 100_000
"""Characters."""
LONGEST_ID = 200

_AS_JSON = FormField(
    name="as_json",
    input_name="as_json",
    label="Input as JSON",
    kind="json",
    hint="Counts in place of the fields above, when there is something in it.",
)
_ANYTHING = FormField(name="", input_name="data", label="Input", kind="json", hint="Any JSON. Empty: no input.")
_WORKFLOW_ID = FormField(
    name="workflow_id",
    input_name="workflow_id",
    label="Workflow id",
    kind="text",
    hint="A name of your own, by which its runs can be found.",
    attributes={"maxlength": str(LONGEST_ID)},
)


class WorkflowPages:
    """The endpoints, for one App."""

    def __init__(self, app: App, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes

    def operations(self) -> list[Operation]:
        """All of them."""
        return [
            _operation("GET", "/ui/workflows", self.page, "What can be started here"),
            _operation("GET", "/ui/workflows/{name}", self.workflow, "One workflow, and the form to start it"),
            _operation("POST", "/ui/workflows/{name}", self.start, "Start a run"),
        ]

    # --- looking ------------------------------------------------------------------------------

    @looks_at_caller
    async def page(self, request: Request) -> Response:
        """All that the caller reaches, by name."""
        found: dict[str, list[WorkflowDefinition[Any]]] = {}
        for one in self._app.registry.workflows():
            if caller_of(request).reaches(one.name):
                found.setdefault(one.name, []).append(one)
        listed = [
            {"name": name, "versions": [one.version for one in some], "about": _about(some[-1])}
            for name, some in found.items()
        ]
        return render(request, "workflows.html", workflows=listed)

    async def workflow(self, request: Request) -> Response:
        """One workflow; `version` says which one of several."""
        definition = self._definition(request, request.query_params.get("version", ""))
        return await self._page(request, definition)

    # --- starting -----------------------------------------------------------------------------

    async def start(self, request: Request) -> Response:
        """Start a run; one form starts one run, however often it is sent."""
        submitted = dict((await read_form(request, self._limit)).items())
        definition = self._definition(request, submitted.get("version", ""))
        workflow_id = submitted.get("workflow_id", "").strip()
        try:
            if len(workflow_id) > LONGEST_ID:
                raise invalid("workflow_id", f"must have at most {LONGEST_ID} characters")
            run_id = await self._app.client.start_workflow(
                definition.name,
                _validated(definition, _input(_input_fields(definition), submitted)),
                workflow_id or None,
                version=definition.version,
                idempotency_key=submitted.get("once") or None,
            )
        except InvalidInputError as error:
            return await self._page(request, definition, submitted, error)
        except (SerializationError, PayloadTooLargeError) as error:
            return await self._page(request, definition, submitted, InvalidInputError(str(error)))
        except IdempotencyConflictError:
            told = "this form has started another run already; send it again to start one more"
            return await self._page(request, definition, submitted, InvalidInputError(told))
        return go_to(request, f"/ui/runs/{segment(run_id)}")

    # --- parts --------------------------------------------------------------------------------

    def _definition(self, request: Request, version: str) -> WorkflowDefinition[Any]:
        name: str = request.path_params["name"]
        if version and not (version.isascii() and version.isdigit() and len(version) < 10):
            raise UnknownWorkflowError(f"workflow {name!r} has no version {version[:20]!r} here")
        return self._app.registry.workflow(name, int(version) if version else None)

    async def _page(
        self,
        request: Request,
        definition: WorkflowDefinition[Any],
        submitted: Mapping[str, str] | None = None,
        wrong: InvalidInputError | None = None,
    ) -> Response:
        caller, name = caller_of(request), definition.name
        versions = [one for one in self._app.registry.workflows() if one.name == name]
        runs, schema = [], _schema(definition)
        if may_read := caller.may(Scope.READ):
            page = await self._app.store.list(RunQuery(name=name, limit=LATEST_RUNS))
            shown = Showing(request, self._app).of(name)
            runs = [run_summary(request, one, shown) for one in page.items]
        return render(
            request,
            "workflow.html",
            status=200 if wrong is None else 422,
            one=definition,
            about=_about(definition),
            versions=[one.version for one in versions],
            is_latest=definition.version == max(one.version for one in versions),
            schema=schema,
            source=source_of(definition) if may_read else None,
            runs=runs,
            may_read=may_read,
            may_start=caller.may(Scope.START),
            form=filled_form([*_input_fields(definition), _AS_JSON, _WORKFLOW_ID], submitted, wrong),
            has_fields=schema is not None,
            once=fresh_id(32),
        )


def source_of(definition: WorkflowDefinition[Any]) -> dict[str, Any] | None:
    """Module, line and text of the function that runs, decorators and all. None: it cannot be had."""
    from ...lint.source import of_function, plain_function  # what reads source is loaded when it is asked for

    fn = plain_function(definition.fn)
    found = None if fn is None else of_function(fn)
    if found is None:
        return None
    text = "\n".join(found.text.split("\n")[: found.tree.end_lineno])  # comments that follow are not its own
    text = inspect.cleandoc(text.removeprefix("if 1:\n")) if text.startswith("if 1:\n") else text
    cut = text[:LONGEST_SOURCE]
    return {"module": found.module, "line": found.above + found.tree.lineno, "text": cut, "is_cut": cut != text}


def _about(definition: WorkflowDefinition[Any]) -> str:
    return inspect.getdoc(definition.fn) or ""


def _schema(definition: WorkflowDefinition[Any]) -> dict[str, Any] | None:
    try:
        return definition.input_schema()
    except PydanticUserError:  # an input type that no JSON schema can describe
        return None


def _input_fields(definition: WorkflowDefinition[Any]) -> list[FormField]:
    schema = _schema(definition)
    return [_ANYTHING] if schema is None else fields_of(schema)


def _input(fields: Sequence[FormField], submitted: Mapping[str, str]) -> Any:
    """What was typed. Raises InvalidInputError."""
    text = submitted.get("as_json", "").strip()
    if not text:
        return read_data(fields, submitted)
    try:
        return parse_json(text.encode())
    except (HttpProblem, UnicodeEncodeError) as error:
        raise invalid("as_json", str(error).replace("the body", "this")) from None


def _validated(definition: WorkflowDefinition[Any], data: Any) -> Any:
    """The input as the workflow receives it. Raises InvalidInputError whose errors are found in the form."""
    try:
        return definition.validate(data)
    except InvalidInputError as error:
        errors = [{**one, "loc": ["data", *one["loc"]]} for one in error.errors]
        raise InvalidInputError(str(error), errors) from None


def _operation(method: str, path: str, endpoint: Any, summary: str) -> Operation:
    return Operation(
        method=method,
        path=path,
        endpoint=endpoint,
        summary=summary,
        scope=Scope.START,
        answers={200: Html},
        described=False,
    )
