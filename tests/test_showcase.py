"""The showcase of `make screenshots`: it is made as it should be, and each of its pages is there. In process, and
small: the pictures themselves are for eyes."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from tests.http.front import calling
from tests.showcase.made import make
from tests.showcase.workflows import ALL
from tinyworkflow_core import App
from tinyworkflow_core.store import RunQuery, Status

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


async def test_the_showcase_has_runs_of_every_status_and_each_of_its_pages_is_there() -> None:
    app = App("sqlite:///:memory:", workflows=ALL, dispatcher="none")
    pages = await make(app.store, now=NOW, days=3, bookings=10)
    found = (await app.store.list(RunQuery(limit=200))).items
    assert {one.status for one in found} == {*Status}
    assert max(one.created_at for one in found) == NOW
    async with calling(app, parts={"ui"}) as caller:
        for name, path in pages.items():
            answer = await caller.get(path)
            assert answer.status_code == 200, name
            assert answer.headers["content-type"].startswith("text/html"), name
        failed = (await caller.get(pages["run-failed"])).text
        retrying = (await caller.get(pages["run-retrying"])).text
        parked = (await caller.get(pages["run-parked"])).text
    await app.close()

    # A saga's failure names the step that brought it down, not what was undone for it; and what undid is told as such.
    failure = failed[failed.index("Why it failed") : failed.index("Facts")]
    assert re.search(r"Step 6 <strong><bdi>book_courier</bdi></strong> failed at attempt 3", failure)
    assert "reserve_stock" not in failure.partition("Traceback")[0]
    assert len(re.findall(r'class="kind">compensation', failed)) == 2
    # A run that is being retried says what has gone wrong so far, and when the next attempt comes.
    assert re.search(r"Step 1 <strong><bdi>fetch_rates</bdi></strong> failed at attempt \d", retrying)
    assert "name or service not known" in retrying
    # One that waits is not drawn as if it were at work, and a check that finds the same does not say it twice.
    assert "tone-open" not in parked.partition("</tbody>")[0]
    assert parked.count("The history holds") == 1
    assert "asks for the same still" in parked
