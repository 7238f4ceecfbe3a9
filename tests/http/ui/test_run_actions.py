"""What the forms of a run's page do, and how they tell what they did not do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.http.front import calling, ended, paused, seen
from tests.http.ui.run_front import field_of, new_app, page, send, words
from tinyworkflow_core import App
from tinyworkflow_core.store import RunQuery


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = new_app()
    await app.start_worker()
    yield app
    await app.close()


@pytest.fixture
async def caller(app: App) -> AsyncIterator[httpx.AsyncClient]:
    async with calling(app) as caller:
        yield caller


async def start(caller: httpx.AsyncClient, name: str, run_id: str, given: object = None) -> None:
    answer = await caller.post(f"/v1/workflows/{name}/runs", json={"run_id": run_id, "input": given})
    assert answer.status_code == 202, answer.text


def assert_done(answer: httpx.Response, run_id: str, action: str) -> None:
    assert (answer.status_code, answer.headers.get("location")) == (303, f"/ui/runs/{run_id}?done={action}")


async def test_signals_with_json_reach_the_run(caller: httpx.AsyncClient) -> None:
    await start(caller, "listener", "l")
    assert_done(await send(caller, "l", "signal", name="word", payload='{"a": [1]}'), "l", "signal")
    assert "The signal is stored" in words(await page(caller, "/ui/runs/l?done=signal"))
    assert_done(await send(caller, "l", "signal", name=" word ", payload=""), "l", "signal")
    assert (await ended(caller, "l"))["output"] == [{"a": [1]}, None]


async def test_a_form_that_is_sent_twice_counts_once(caller: httpx.AsyncClient) -> None:
    await start(caller, "listener", "l")
    once = field_once(await page(caller, "/ui/runs/l"))
    assert once != field_once(await page(caller, "/ui/runs/l")), "another page is another form"
    for _ in range(2):
        assert_done(await send(caller, "l", "signal", name="word", payload="1", once=once), "l", "signal")
    assert_done(await send(caller, "l", "signal", name="word", payload="2", once="not ours"), "l", "signal")
    assert (await ended(caller, "l"))["output"] == [1, 2]


def field_once(html: str) -> str:
    return html.partition('name="once" value="')[2].partition('"')[0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "", "payload": "1"}, "say the name of the signal"),
        ({"name": "n" * 201, "payload": "1"}, "at most 200 characters"),
        ({"name": "word", "payload": "{'a': 1}"}, "the payload is not JSON"),
        ({"name": "word", "payload": "NaN"}, "the payload is not JSON"),
        ({"name": "word", "payload": "[" * 200 + "]" * 200}, "nested"),
    ],
    ids=["no-name", "long-name", "not-json", "nan", "deep"],
)
async def test_a_signal_that_cannot_be_sent_is_told_on_the_page_with_what_was_typed(
    caller: httpx.AsyncClient, fields: dict[str, str], said: str
) -> None:
    await start(caller, "listener", "l")
    answer = await send(caller, "l", "signal", **fields)
    assert answer.status_code == 422
    assert "Nothing was done (signal)." in words(answer.text)
    assert said in words(answer.text)
    assert field_of(answer.text, "signal-payload") == fields["payload"]
    assert '<details class="act" open><summary>Send a signal' in answer.text
    assert "SignalReceived" not in (await caller.get("/v1/runs/l/events")).text


async def test_a_run_is_suspended_resumed_and_cancelled(caller: httpx.AsyncClient) -> None:
    await start(caller, "listener", "l")
    assert_done(await send(caller, "l", "suspend", reason="lunch"), "l", "suspend")
    await seen(caller, "l", lambda view: view["status"] == "suspended")
    html = await page(caller, "/ui/runs/l")
    assert "/l/suspend" not in html
    assert "lunch" in html
    assert_done(await send(caller, "l", "resume"), "l", "resume")
    await seen(caller, "l", lambda view: view["status"] == "waiting")
    assert_done(await send(caller, "l", "cancel", reason="enough"), "l", "cancel")
    assert (await ended(caller, "l"))["status"] == "cancelled"


async def test_terminating_takes_a_confirmation_whatever_the_browser_does(caller: httpx.AsyncClient) -> None:
    await start(caller, "sleeper", "s")
    answer = await send(caller, "s", "terminate", reason="why")
    assert (answer.status_code, field_of(answer.text, "terminate-reason")) == (422, "why")
    assert "tick the box to confirm" in words(answer.text)
    assert_done(await send(caller, "s", "terminate", reason="why", confirmed="yes"), "s", "terminate")
    assert (await ended(caller, "s"))["status"] == "terminated"


async def test_an_action_that_comes_too_late_is_told_in_words(caller: httpx.AsyncClient) -> None:
    await start(caller, "broken", "b")
    await ended(caller, "b")
    answer = await send(caller, "b", "cancel")
    assert answer.status_code == 410
    assert "run 'b' has ended" in words(answer.text)
    assert "Retry from the failure" in answer.text, "the page shows how the run stands"
    assert_done(await send(caller, "b", "retry"), "b", "retry")
    await seen(caller, "b", lambda view: view["retry_count"] == 1)
    await start(caller, "echo", "e", 1)
    await ended(caller, "e")
    answer = await send(caller, "e", "retry")
    assert answer.status_code == 409
    assert "only one that failed can be retried" in words(answer.text)


async def test_a_fork_takes_another_input_and_keeps_what_was_not_edited(app: App, caller: httpx.AsyncClient) -> None:
    await start(caller, "ship", "s", {"weight": 5})
    assert (await ended(caller, "s"))["output"] == 22
    html = await page(caller, "/ui/runs/s?fork_at=1")
    assert (field_of(html, "fork-at"), '<details class="act" id="fork" open>' in html) == ("1", True)
    assert '"weight": 5' in field_of(html, "fork-input")
    answer = await send(caller, "s", "fork", at_event="1", input='{"weight": 7, "to": "Chur"}')
    new = answer.headers["location"].removeprefix("/ui/runs/").removesuffix("?done=fork")
    assert (await ended(caller, new))["output"] == 30
    assert "Forked from" in words(await page(caller, f"/ui/runs/{new}"))
    same = await send(caller, "s", "fork", at_event="1", input=field_of(html, "fork-input"))
    again = await app.store.get(same.headers["location"].removeprefix("/ui/runs/").removesuffix("?done=fork"))
    origin = await app.store.get("s")
    assert again is not None
    assert origin is not None
    assert again.input == origin.input


async def test_a_fork_that_is_sent_twice_is_one_run_and_says_so_when_it_is_sent_with_another_input(
    app: App, caller: httpx.AsyncClient
) -> None:
    await start(caller, "ship", "s", {"weight": 5})
    await ended(caller, "s")
    once = field_once((await page(caller, "/ui/runs/s")).partition('/s/fork"')[2])
    given = {"at_event": "1", "input": '{"weight": 7}', "once": once}
    sent = [await send(caller, "s", "fork", **given) for _ in range(2)]
    assert [one.status_code for one in sent] == [303, 303]
    assert sent[0].headers["location"] == sent[1].headers["location"]
    assert len((await app.store.list(RunQuery())).items) == 2
    other = await send(caller, "s", "fork", **{**given, "input": '{"weight": 8}'})
    assert other.status_code == 409
    assert "is taken" in words(other.text)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"at_event": "0", "input": ""}, "has the events 1 to"),
        ({"at_event": "-1", "input": ""}, "say from which event on"),
        ({"at_event": "1", "input": "{"}, "the input is not JSON"),
        ({"at_event": "1", "input": '{"weight": "heavy"}'}, "weight"),
    ],
    ids=["zero", "negative", "not-json", "not-fitting"],
)
async def test_a_fork_that_cannot_be_is_told_on_the_page(
    caller: httpx.AsyncClient, fields: dict[str, str], said: str
) -> None:
    await start(caller, "ship", "s", {"weight": 5})
    await ended(caller, "s")
    answer = await send(caller, "s", "fork", **fields)
    assert answer.status_code == 422
    notice = words(answer.text.partition('id="refused"')[2].partition("</div>")[0])
    assert said in notice
    assert field_of(answer.text, "fork-at") == fields["at_event"]


async def test_a_question_is_decided_from_the_page_of_its_run(caller: httpx.AsyncClient) -> None:
    await start(caller, "asker", "a")
    await paused(caller, "a")
    html = await page(caller, "/ui/runs/a")
    form = html.partition('action="/ui/approvals/a"')[2].partition("</form>")[0]
    hidden = {
        name: form.partition(f'name="{name}" value="')[2].partition('"')[0] for name in ("csrf", "key", "question")
    }
    assert hidden["key"] == "go/no go"
    answer = await caller.post("/ui/approvals/a", data={**hidden, "by": "ada", "comment": "", "approved": "true"})
    assert answer.status_code == 303, answer.text
    assert (await ended(caller, "a"))["output"] == "True by ada"


async def test_a_form_without_the_token_of_the_browser_does_nothing(caller: httpx.AsyncClient) -> None:
    await start(caller, "listener", "l")
    await page(caller, "/ui/runs/l")
    for action in ("signal", "cancel", "terminate", "suspend", "resume", "retry", "fork"):
        data = {"csrf": "forged", "name": "word", "confirmed": "yes", "at_event": "1"}
        assert (await caller.post(f"/ui/runs/l/{action}", data=data)).status_code == 403
    assert (await caller.get("/v1/runs/l")).json()["status"] in ("pending", "running", "waiting")
    assert len((await caller.get("/v1/runs")).json()["runs"]) == 1


async def test_an_action_on_a_run_that_there_is_not_says_so(caller: httpx.AsyncClient) -> None:
    await start(caller, "listener", "l")
    token = (await page(caller, "/ui/runs/l")).partition('name="csrf" value="')[2].partition('"')[0]
    answer = await caller.post("/ui/runs/gone/cancel", data={"csrf": token})
    assert answer.status_code == 404
    assert "there is no run 'gone'" in words(answer.text)
