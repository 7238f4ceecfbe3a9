"""The showcase: two weeks of a small web shop, made in a moment in a store that is empty, by the library itself on a
virtual clock that ends now. Every history is a real one; only leases of functions that would be at work are taken here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tests.showcase import workflows as shop
from tinyworkflow_core import App, WorkflowContext, workflow
from tinyworkflow_core.cron import CronSchedule
from tinyworkflow_core.dispatcher import Perform
from tinyworkflow_core.http.ui.new_schedule import PATH as NEW_SCHEDULE
from tinyworkflow_core.registry import WorkflowDefinition
from tinyworkflow_core.store import Store
from tinyworkflow_core.testing import WorkflowEnvironment
from tinyworkflow_core.testing.virtual_clock import VirtualClock

ZONE = "Europe/Berlin"
_LEASE = timedelta(minutes=20)

Address = Mapping[str, str]
"""What a page is -> its path."""


async def make(store: Store, *, now: datetime, days: int = 14, bookings: int = 300) -> Address:
    """Fill the store with `days` of history and a run of that many bookings; gives the addresses of all pages."""
    begin = now - timedelta(days=days)
    async with WorkflowEnvironment(_earlier(), store=store, start=begin) as world:
        await world.start("close_year", 2025, run_id="close-2025")
        await world.start("nightly_invoices", run_id="invoices-by-hand")
        await world.run()
    async with WorkflowEnvironment(shop.ALL, store=store, start=world.clock.now()) as world:
        await _schedules(world)
        await _until(world, now - timedelta(days=2, hours=3))
        await _older_runs(world, bookings)
        await _until(world, now - timedelta(hours=5))
        await _runs_of_today(world, now)
        await _until(world, now)
    await _at_work(store, now)
    return _addresses()


def _earlier() -> list[WorkflowDefinition[Any]]:
    """What was deployed before: runs of it are parked by now."""

    @workflow(name="close_year")
    async def other_steps(ctx: WorkflowContext, year: int) -> None:
        await ctx.execute_activity(shop.freeze_accounts, year)
        await ctx.wait_for_signal("auditor_agrees")

    @workflow(name="nightly_invoices", version=1)
    async def first_version(ctx: WorkflowContext) -> None:
        await ctx.wait_for_signal("printed")

    return [other_steps, first_version]


async def _until(world: WorkflowEnvironment, moment: datetime) -> None:
    await world.advance(max(moment - world.clock.now(), timedelta(0)))


async def _schedules(world: WorkflowEnvironment) -> None:
    await world.schedule("nightly_invoices", CronSchedule("30 2 * * *", timezone=ZONE), id="nightly-invoices")
    await world.schedule("sync_exchange_rates", CronSchedule("0 */6 * * *"), "main", id="exchange-rates")
    await world.schedule(
        "audit_ledger", CronSchedule("0 7 * * 1", timezone=ZONE), 12, id="weekly-audit", pause_after_failures=3
    )
    await world.schedules.pause("weekly-audit", note="The auditors are on holiday until the 7th.")


def _order(number: int, customer: str, total: float, country: str = "DE") -> dict[str, Any]:
    lines = [{"sku": "KB-104-ISO", "quantity": 1}, {"sku": "CAB-USB-C-2M", "quantity": 2}]
    return {
        "order_id": f"2026-{number}",
        "customer": customer,
        "country": country,
        "total": total,
        "lines": lines[: 1 + number % 2],
    }


async def _order_run(world: WorkflowEnvironment, number: int, customer: str, total: float, country: str = "DE") -> str:
    options = {
        "workflow_id": f"order-2026-{number}",
        "attributes": {"country": country, "channel": "web" if number % 2 else "app"},
    }
    order = _order(number, customer, total, country)
    run_id = await world.start("fulfil_order", order, run_id=f"order-2026-{number}", **options)
    await world.run()
    return run_id


async def _older_runs(world: WorkflowEnvironment, bookings: int) -> None:
    await world.start("audit_ledger", bookings, run_id="audit-2026-10", attributes={"month": "2026-10"})
    await world.run()
    await world.start("onboard_customer", "Nordwind Logistics", run_id="onboard-nordwind")
    await world.run()
    for number, customer, total in ((7411, "mara@example.org", 59.0), (7412, "tom@example.org", 249.0)):
        run_id = await _order_run(world, number, customer, total)
        await world.advance("3m")
        await world.signal(run_id, "packed", {"box": "M", "weight_kg": 1.4})
        await world.advance("2h")
    await world.start("catalogue_import", 6, run_id="catalogue-acme-11")
    run_id = await world.start("onboard_customer", "Umbra Trading", run_id="onboard-umbra")
    await world.advance("40s")
    await world.terminate(run_id, "stands on a sanctions list since today")
    run_id = await _order_run(world, 7413, "ida@example.org", 35.5)
    await world.advance("10m")
    await world.cancel(run_id, "ordered twice")
    await world.run()


async def _runs_of_today(world: WorkflowEnvironment, now: datetime) -> None:
    people = {"name": "Northern Paper Ltd", "volume": 48_000, "currency": "EUR", "months": 24}
    await world.start("supplier_contract", people, run_id="contract-northern-paper", attributes={"volume": 48_000})
    await world.advance("90m")
    await world.decide("contract-northern-paper", "contract", by="grace@shop.example", comment="Good terms.",
                       data={"cost_centre": "4711", "until": "2028-12-31", "priority": "normal"})  # fmt: skip
    refund = {"order_id": "2026-7398", "customer": "Maya Lindqvist", "amount": 249.0, "reason": "Arrived broken"}
    await world.start("refund_request", refund, run_id="refund-2026-7398", attributes={"order": "2026-7398"})
    await world.advance("20m")
    small = {**refund, "order_id": "2026-7390", "amount": 18.9, "customer": "Joris de Vries"}
    await world.start("refund_request", small, run_id="refund-2026-7390")
    await world.signal("close-2025", "auditor_agrees")
    await world.signal("invoices-by-hand", "printed")
    await _until(world, now - timedelta(minutes=58))
    paid = await _order_run(world, 7420, "li@example.org", 129.0, "CH")
    suspended = await _order_run(world, 7421, "sven@example.org", 84.0)
    await world.suspend(suspended, "the customer has called: wait for a new address")
    await _until(world, now - timedelta(minutes=47))
    await world.signal(paid, "packed", {"box": "S", "weight_kg": 0.6})
    await _until(world, now - timedelta(minutes=24))
    failing = await _order_run(world, 7422, "elin@example.is", 312.4, "IS")
    await world.advance("25s")
    await world.signal(failing, "packed", {"box": "L", "weight_kg": 3.2})
    await world.advance("1m")
    await world.start("sync_exchange_rates", "backup", run_id="rates-by-hand")
    await _until(world, now - timedelta(minutes=9))
    await _order_run(world, 7423, "ken@example.org", 42.0, "AT")


async def _at_work(store: Store, now: datetime) -> None:
    """An import that a function has in hand, and one that nobody has begun."""
    clock = VirtualClock(now - timedelta(seconds=75))
    app = App(store, workflows=shop.ALL, dispatcher="none", clock=clock)
    run_id = await app.client.start_workflow("catalogue_import", 12, run_id="catalogue-northern-12")
    await app.advance(run_id)
    for step in (1, 2, 3, 4, 5, 7):
        await app.perform(Perform(run_id=run_id, generation=0, activity_id=step, attempt=1))
        await app.advance(run_id)
    clock.move_to(now)
    assert await store.acquire(run_id, owner="worker-00042/7c1e", now=now, ttl=_LEASE)
    await app.client.start_workflow("fulfil_order", _order(7424, "noa@example.org", 77.0), run_id="order-2026-7424")


def _addresses() -> Address:
    return {
        "health": "/ui/health",
        "runs": "/ui/runs",
        "runs-filtered": "/ui/runs?status=failed&workflow=fulfil_order&since=7d&attribute=country%3DIS",
        "runs-none": "/ui/runs?workflow=nothing_like_it",
        "run-completed": "/ui/runs/order-2026-7412",
        "run-failed": "/ui/runs/order-2026-7422",
        "run-parked": "/ui/runs/close-2025?check=1",
        "run-parked-version": "/ui/runs/invoices-by-hand",
        "run-paused": "/ui/runs/refund-2026-7398",
        "run-running": "/ui/runs/catalogue-northern-12",
        "run-retrying": "/ui/runs/rates-by-hand",
        "run-children": "/ui/runs/onboard-nordwind",
        "run-suspended": "/ui/runs/order-2026-7421",
        "run-pending": "/ui/runs/order-2026-7424",
        "run-long": "/ui/runs/audit-2026-10",
        "compare": "/ui/diff?a=order-2026-7412&b=order-2026-7422",
        "compare-nothing": "/ui/diff",
        "inbox": "/ui/approvals",
        "question": "/ui/approvals/contract-northern-paper?key=contract",
        "schedules": "/ui/schedules",
        "schedule": "/ui/schedules/nightly-invoices",
        "schedule-paused": "/ui/schedules/weekly-audit",
        "schedule-new": NEW_SCHEDULE,
        "workflows": "/ui/workflows",
        "workflow": "/ui/workflows/fulfil_order",
        "activities": "/ui/activities",
    }
