"""The small parts of local emulation that need no server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import pytest

from tests.http.front import calling, new_app
from tinyworkflow_core.http import emulation
from tinyworkflow_core.http.emulation import DEFAULT_PORT, port_of


@pytest.mark.parametrize(
    ("arguments", "environ", "port"),
    [
        ([], {}, DEFAULT_PORT),
        ([], {"PORT": "81"}, 81),
        (["ff", "--port", "82"], {"PORT": "81"}, 82),
        (["ff", "--port=83", "--target", "app"], {}, 83),
        (["ff", "--port"], {}, DEFAULT_PORT),
        (["ff", "--port", "x"], {}, DEFAULT_PORT),
    ],
)
def test_the_port_is_the_one_that_the_server_was_told(
    arguments: list[str], environ: Mapping[str, str], port: int
) -> None:
    assert port_of(arguments, environ) == port


async def test_the_first_request_makes_an_emulation_work_on_runs_that_are_due(tmp_path: object) -> None:
    app = new_app(tick_seconds=0.05)
    app.dispatcher.dispatch = _lost  # type: ignore[method-assign]  # a wake-up that never arrives
    run_id = await app.client.start_workflow("echo", 1)
    del app.dispatcher.dispatch
    async with calling(app) as caller:
        assert (await caller.get("/healthz")).status_code == 200
        assert await app.client.get_result(run_id, timeout=10) == 1
    await app.close()


async def _lost(*args: object, **kwargs: object) -> None:
    await asyncio.sleep(0)


async def test_nothing_is_worked_on_where_others_make_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> None:
        raise AssertionError("a worker was started")

    others_dispatch, on_platform = new_app(dispatcher="none"), new_app()
    async with calling(others_dispatch) as caller:
        assert (await caller.get("/healthz")).status_code == 200
    monkeypatch.setenv("K_SERVICE", "flows")
    monkeypatch.setattr(on_platform, "start_worker", never)
    async with calling(on_platform) as caller:
        assert (await caller.get("/healthz")).status_code == 200
    await others_dispatch.close()
    await on_platform.close()


def test_no_process_wakes_itself_on_the_managed_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    hooked: list[object] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: hooked.append(hooks))
    monkeypatch.setenv("K_SERVICE", "flows")
    emulation.wake_after_fork()
    assert hooked == []
    monkeypatch.delenv("K_SERVICE")
    emulation.wake_after_fork()
    assert len(hooked) == 1
