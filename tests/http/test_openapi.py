"""The OpenAPI document: it says what this process answers, and the process answers what it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
from starlette.routing import Route

from tests.functions.server import server
from tests.http.front import calling, new_app
from tinyworkflow_core import App, create_app
from tinyworkflow_core.http import ALL

HERE = Path(__file__).parent
KEY = {"Authorization": "Bearer key"}


async def test_every_route_of_a_part_is_in_its_document_and_no_other(app: App) -> None:
    for parts in [ALL, *({one} for one in ALL)]:
        routes = {
            (method, route.path.replace(":path}", "}"))
            for route in create_app(app, parts=parts, webhooks=()).routes
            if isinstance(route, Route) and not route.path.startswith("/ui")  # for browsers
            for method in (route.methods or set()) - {"HEAD"}
        }
        async with calling(app, parts=parts) as caller:
            document = (await caller.get("/openapi.json")).json()
        described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
        assert document["openapi"].startswith("3.1")
        assert described == routes


async def test_the_document_takes_its_models_from_the_code(app: App) -> None:
    async with calling(app) as caller:
        document = (await caller.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    assert schemas["StartRequest"]["additionalProperties"] is False
    assert set(schemas["RunSummary"]["required"]) >= {"run_id", "status", "links"}
    start = document["paths"]["/v1/workflows/{name}/runs"]["post"]
    assert {"200", "202", "400", "401", "404", "409", "413", "422", "503"} <= set(start["responses"])
    assert start["x-scope"] == "start"
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(names) == len(set(names))


async def test_below_a_mount_the_document_says_where_it_is() -> None:
    app = new_app()
    transport = httpx.ASGITransport(create_app(app, emulate=True), root_path="/flows", client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as caller:
        assert (await caller.get("/openapi.json")).json()["servers"] == [{"url": "/flows"}]
    await app.close()


def test_what_is_served_is_what_the_document_says_and_nothing_is_a_500(tmp_path: Path) -> None:
    """Hundreds of right, wrong and odd requests, made from the document by schemathesis, against a real process."""
    environ = {"TINYWORKFLOW_API_KEYS": "key", "TINYWORKFLOW_DATABASE_URL": f"sqlite:///{tmp_path}/runs.db"}
    environ["TINYWORKFLOW_LINK_KEYS"] = "k" * 32  # without any the approval page is a 503
    # It comes hundreds of times without a valid key, and each time wants to hear that.
    environ["TINYWORKFLOW_ACCESS"] = '{"failures": {"per_second": 1000, "burst": 100000}}'
    with server("app", environ, source="tests/http/described_main.py") as front:
        front.wait_until_up()
        for run_id, name in [("a1", "asker"), ("a2", "asker"), ("b1", "broken")]:
            path = f"{front.url}/v1/workflows/{name}/runs"
            assert httpx.post(path, json={"run_id": run_id}, headers=KEY).status_code == 202
        command = [str(Path(sys.executable).parent / "st"), "--config-file", str(HERE / "schemathesis.toml"), "run"]
        command += [f"{front.url}/openapi.json", "--header", f"Authorization: {KEY['Authorization']}", "--no-color"]
        found = subprocess.run(
            [*command, "--max-examples", "4", "--warnings", "off"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert found.returncode == 0, found.stdout[-8000:]
        assert "Traceback" not in front.printed()
