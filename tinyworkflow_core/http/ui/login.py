"""Login: the pages that begin and end a browser's session, and where somebody goes who is not let in to a page."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..access import Access
from ..operations import Endpoint, Html, Operation
from ..problems import HttpProblem, answer_to, log
from .rendering import go_to, own_path, render
from .sessions import Sessions, end_session, has_session, read_form

_LOGIN = "/ui/login"
_MAX_FORM_BYTES = 20_000
_TITLES = {
    400: "That request cannot be read",
    403: "You may not do this",
    404: "There is no such thing",
    409: "That does not fit how things stand",
    410: "It is too late for that",
    413: "That is too much",
    422: "That does not fit",
    429: "Too many calls",
    500: "Something went wrong",
    503: "The store does not answer",
}


class LoginPages:
    """The endpoints, for one process."""

    def __init__(self, access: Access, sessions: Sessions) -> None:
        self._access = access
        self._sessions = sessions

    def operations(self) -> list[Operation]:
        """All of them. They are for whoever comes."""
        return [
            _page("GET", _LOGIN, self.show, "The form for an API key"),
            _page("POST", _LOGIN, self.login, "Begin a session"),
            _page("POST", "/ui/logout", self.logout, "End the session"),
        ]

    async def show(self, request: Request) -> Response:
        """The form; whoever has a session goes on to where they wanted."""
        target = own_path(request.query_params.get("next", ""))
        if not self._access.has_keys or self._sessions.caller(request) is not None:
            return go_to(request, target)
        return self._form(request, target)

    async def login(self, request: Request) -> Response:
        """Begin a session with the API key in the form."""
        form = await read_form(request, _MAX_FORM_BYTES)
        target = own_path(form.get("next", ""))
        if not self._sessions.possible:
            return self._form(request, target)
        response = go_to(request, target)
        if self._sessions.begin(request, response, form.get("key", "").strip()):
            return response
        return self._form(request, target, wrong=True)

    async def logout(self, request: Request) -> Response:
        """End the session."""
        await read_form(request, _MAX_FORM_BYTES)
        response = go_to(request, _LOGIN)
        end_session(request, response)
        return response

    def _form(self, request: Request, target: str, *, wrong: bool = False) -> Response:
        possible = self._sessions.possible
        status = 401 if wrong else 200 if possible else 503
        return render(request, "login.html", status=status, target=target, wrong=wrong, possible=possible)

    def paged(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, telling its problems as pages. Whoever is not known goes to the form and comes back."""

        async def as_page(request: Request) -> Response:
            try:
                return await endpoint(request)
            except ClientDisconnect:
                raise
            except Exception as error:
                if isinstance(error, HttpProblem) and error.status == 401 and self._access.has_keys:
                    return self._send_to_login(request)
                return problem_page(request, error)

        return as_page

    def _send_to_login(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            return go_to(request, _LOGIN)
        root = request.scope.get("root_path", "")
        path = request.scope["path"].removeprefix(root)
        wanted = quote(path, safe="/") + (f"?{request.url.query}" if request.url.query else "")
        if request.headers.get("sec-fetch-site") == "cross-site" and not has_session(request):
            # Somebody follows a link in a mail or a chat, and the browser keeps a strict cookie back for that. When
            # our own page asks for the same again it sends it.
            return render(request, "once_more.html", headers={"Refresh": f"0; url={root}{wanted}"}, again=wanted)
        return go_to(request, f"{_LOGIN}?next={quote(wanted, safe='')}")


def problem_page(request: Request, error: Exception) -> Response:
    """The error as a page. Of what this front has no answer for it says nothing; the log has the rest."""
    answer = answer_to(error, "")
    log(error, answer.status_code, request.scope)
    said = error.detail if isinstance(error, HttpProblem) else str(error)
    if answer.status_code == 500:
        said = "Something went wrong inside. The log of this service says what."
    kept = {name: answer.headers[name] for name in ("Retry-After",) if name in answer.headers}
    title = _TITLES.get(answer.status_code, "This did not work")
    return render(request, "problem.html", status=answer.status_code, headers=kept, heading=title, said=said)


def _page(method: str, path: str, endpoint: Endpoint, summary: str) -> Operation:
    return Operation(
        method=method,
        path=path,
        endpoint=endpoint,
        summary=summary,
        scope=None,
        answers={200: Html},
        described=False,
    )
