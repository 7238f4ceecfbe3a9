"""What is exported over HTTP can be replayed elsewhere, and goes to nobody from whom a part of it is hidden."""

from __future__ import annotations

from tests.http.front import assert_problem
from tests.http.test_access import by, front, granted
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.checking import check_history, exported


@workflow(redact=["card"])
async def pays(ctx: WorkflowContext, order: dict[str, str]) -> str:
    return "paid"


@workflow
async def plainly(ctx: WorkflowContext) -> str:
    return "done"


async def test_a_history_is_exported_whole_or_not_at_all() -> None:
    app = App("sqlite:///:memory:", workflows=[pays, plainly], dispatcher="none")
    await app.client.start_workflow(pays, {"card": "4111"}, run_id="paid")
    await app.client.start_workflow(plainly, run_id="plain")
    for run_id in ("paid", "plain"):
        await app.advance(run_id)
    keys = [granted("reader", "read"), granted("auditor", "read", "reveal"), granted("starter", "start")]
    async with front(app, keys=keys) as caller:
        refused = await caller.get("/v1/runs/paid/history", headers=by("reader"))
        assert_problem(refused, 403, "reveal")
        assert "4111" not in refused.text
        for run_id, key in (("paid", "auditor"), ("plain", "reader")):
            found = (await caller.get(f"/v1/runs/{run_id}/history", headers=by(key))).json()
            state = await app.store.load(run_id)
            assert state is not None
            assert found == exported(state)
            assert check_history(app.registry, app.codec, found) is None
        assert_problem(await caller.get("/v1/runs/none/history", headers=by("reader")), 404, "none")
        assert (await caller.get("/v1/activities", headers=by("starter"))).json() == {"activities": []}
    await app.close()
