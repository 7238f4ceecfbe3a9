"""What the showcase runs: the workflows of a small web shop. Nothing here calls anybody.

An activity says how long it takes by `takes`. On a virtual clock that much time passes in the order in which those that
are at work at once end; on the machine's clock it is slept through.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import date, datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, Field, PositiveFloat, PositiveInt

from tinyworkflow_core import (
    ApplicationError,
    RetryPolicy,
    WorkflowContext,
    activity,
    activity_context,
    workflow,
)
from tinyworkflow_core.testing.virtual_clock import VirtualClock

_SETTLES_SECONDS = 0.004
"""How long others get to begin, and what has ended to be stored, before virtual time goes on."""

_at_work: list[tuple[datetime, int]] = []
_numbers = itertools.count()


async def takes(seconds: float) -> None:
    """The activity that calls takes that long."""
    clock = activity_context().clock
    if not isinstance(clock, VirtualClock):
        await asyncio.sleep(seconds)
        return
    mine = (clock.now() + timedelta(seconds=seconds), next(_numbers))
    heapq.heappush(_at_work, mine)
    try:
        while True:
            await asyncio.sleep(_SETTLES_SECONDS)
            if _at_work[0] == mine:
                break
    finally:
        _at_work.remove(mine)
        heapq.heapify(_at_work)
    clock.move_to(mine[0])


# --- an order: a saga with retries ------------------------------------------------------------------------


class Line(BaseModel):
    """Something that was ordered."""

    sku: str
    quantity: PositiveInt = 1


class Order(BaseModel):
    """What the shop knows when somebody has pressed "buy"."""

    order_id: str
    customer: str
    country: Literal["AT", "CH", "DE", "IS"] = Field("DE", description="Where the parcel goes")
    total: PositiveFloat
    lines: list[Line]
    express: bool = False
    note: str | None = Field(None, max_length=500)


class CourierRefused(Exception):
    """No courier takes the parcel."""


@activity
async def release_stock(reserved: dict[str, Any]) -> str:
    """Undoes reserve_stock."""
    await takes(0.4)
    return f"{reserved['reservation']} released"


@activity(compensate=release_stock)
async def reserve_stock(order_id: str, lines: list[Line]) -> dict[str, Any]:
    """Puts what was ordered aside in the warehouse."""
    await takes(0.8)
    return {"reservation": f"R-{order_id}", "pieces": sum(line.quantity for line in lines)}


@activity
async def refund_payment(payment: dict[str, Any]) -> str:
    """Undoes charge_card."""
    await takes(1.1)
    return f"{payment['payment']} refunded"


@activity(retry_policy=RetryPolicy(max_retries=4, initial_delay=2.0, jitter=False), compensate=refund_payment)
async def charge_card(order_id: str, total: float, away: int) -> dict[str, Any]:
    """Takes the money; the bank cannot be reached for the first `away` attempts."""
    await takes(1.9)
    if activity_context().attempt <= away:
        raise ConnectionError("payments.example did not answer within 2 s")
    return {"payment": f"P-{order_id}", "amount": total, "key": activity_context().idempotency_key}


@activity
async def send_mail(to: str, subject: str) -> str:
    """Tells somebody something."""
    await takes(0.3)
    return f"queued for {to}: {subject}"


@activity(retry_policy=RetryPolicy(max_retries=2, initial_delay=4.0, jitter=False))
async def book_courier(order_id: str, country: str) -> dict[str, Any]:
    """Has a courier collect the parcel. None goes to Iceland."""
    await takes(2.4)
    if country == "IS":
        try:
            _ask_courier(country)
        except LookupError as error:
            raise CourierRefused(
                f"no courier takes parcel {order_id} to {country}: 0 of 3 services offer it"
            ) from error
    return {"tracking": f"00340434{order_id[-4:]}", "courier": "Swift Parcel"}


def _ask_courier(country: str) -> None:
    zones = {"AT": 1, "CH": 2, "DE": 1}
    if country not in zones:
        raise LookupError(f"tariff 2026-04 has no zone for {country!r}; known are {', '.join(zones)}")


@workflow
async def track_parcel(ctx: WorkflowContext, tracking: str) -> str:
    """Asks where the parcel is until it has arrived."""
    for stage in ("collected", "sorted", "delivered"):
        await asyncio.sleep(1800)
        await ctx.execute_activity(ask_where, tracking, stage)
        ctx.set_status(stage)
    return "delivered"


@activity
async def ask_where(tracking: str, stage: str) -> str:
    """Where a parcel is."""
    await takes(0.6)
    return stage


@workflow
async def fulfil_order(ctx: WorkflowContext, order: Order) -> dict[str, Any]:
    """From "buy" to the doorstep.

    What cannot be delivered is paid back and put back on the shelf: each step names the one that undoes it.
    """
    ctx.set_status("reserving")
    reserved = await ctx.execute_activity(reserve_stock, order.order_id, order.lines)
    payment = await ctx.execute_activity(charge_card, order.order_id, order.total, 2 if order.total > 100 else 0)
    await ctx.execute_activity(send_mail, order.customer, f"We have your order {order.order_id}")
    ctx.set_status("waiting for the warehouse")
    packed = await ctx.wait_for_signal("packed", timeout="2d")
    await ctx.sleep(20)  # the label printer
    courier = await ctx.execute_activity(book_courier, order.order_id, order.country)
    ctx.set_status("on its way")
    arrived = await ctx.execute_child(track_parcel, courier["tracking"], run_id=f"{ctx.run_id}-parcel")
    return {"payment": payment["payment"], "parcel": packed, "arrived": arrived, "pieces": reserved["pieces"]}


# --- people ------------------------------------------------------------------------------------------------


class Refund(BaseModel):
    """Money that somebody wants back."""

    order_id: str
    customer: str
    amount: PositiveFloat
    reason: str


@workflow
async def refund_request(ctx: WorkflowContext, refund: Refund) -> str:
    """Above 100 somebody has to agree, within three days."""
    if refund.amount > 100:
        try:
            decision = await ctx.wait_for_approval(
                "refund",
                timeout="3d",
                title=f"Refund {refund.amount:.2f} EUR to {refund.customer}?",
                details=refund,
                approvers=["ada@shop.example", "grace@shop.example"],
            )
        except TimeoutError:
            return "lapsed"
        if not decision:
            return f"rejected by {decision.by}"
    await ctx.execute_activity(refund_payment, {"payment": f"P-{refund.order_id}"})
    return "refunded"


class Terms(BaseModel):
    """What those who agree to a supplier fill in."""

    cost_centre: str = Field(pattern=r"^\d{4}$", description="Four digits")
    until: date = Field(description="The last day of the contract")
    priority: Literal["low", "normal", "high"] = "normal"


@workflow
async def supplier_contract(ctx: WorkflowContext, supplier: dict[str, Any]) -> str:
    """Two people agree to a supplier."""
    decision = await ctx.wait_for_approval(
        "contract",
        timeout="14d",
        title=f"Sign the contract with {supplier['name']}?",
        details=supplier,
        approvers=["ada@shop.example", "grace@shop.example", "linus@shop.example"],
        form=Terms,
        quorum=2,
    )
    return "signed" if decision else "declined"


@activity
async def open_account(customer: str) -> str:
    """A login."""
    await takes(1.3)
    return f"account of {customer}"


@activity
async def check_company(customer: str, register: str) -> str:
    """What a public register says."""
    await takes({"tax": 2.2, "trade": 3.4, "sanctions": 1.2}[register])
    return f"{register}: nothing against {customer}"


@workflow
async def open_books(ctx: WorkflowContext, customer: str) -> str:
    """A login and a welcome."""
    account = await ctx.execute_activity(open_account, customer)
    await ctx.execute_activity(send_mail, customer, "Welcome")
    return account


@workflow
async def onboard_customer(ctx: WorkflowContext, customer: str) -> str:
    """Checks at once, a child that opens the books, a mail every other day until the contract is signed."""
    ctx.set_status({"stage": "checks", "customer": customer})
    await ctx.execute_parallel(*((check_company, (customer, one)) for one in ("tax", "trade", "sanctions")))
    await ctx.execute_child(open_books, customer, run_id=f"{ctx.run_id}-books")
    ctx.set_status({"stage": "contract", "customer": customer})
    for reminder in range(1, 6):
        try:
            await ctx.wait_for_signal("contract_signed", timeout="2d")
        except TimeoutError:
            await ctx.execute_activity(send_mail, customer, f"Your contract, reminder {reminder}")
        else:
            return "a customer"
    return "gave up"


# --- much at once ------------------------------------------------------------------------------------------


@activity(run_on="queue", retry_policy=RetryPolicy(max_retries=3, initial_delay=30.0, jitter=False))
async def import_page(page: int) -> dict[str, int]:
    """One page of a supplier's catalogue."""
    await takes(3.0 + page * 7 % 5)
    if page == 7 and activity_context().attempt == 1:
        raise TimeoutError("catalogue.example sent nothing for 10 s")
    return {"page": page, "articles": 480 + page * 13 % 40}


@workflow
async def catalogue_import(ctx: WorkflowContext, pages: int = 12) -> int:
    """A page each, every one a call of its own."""
    found = await ctx.map(import_page, range(1, pages + 1), max_concurrency=8)
    found.raise_if_failed()
    return sum(one["articles"] for one in found.results if one is not None)


@activity(retry_policy=RetryPolicy(max_retries=2, initial_delay=1.0, jitter=False))
async def audit_booking(booking: int) -> str:
    """Whether a booking adds up."""
    await takes(0.4 + booking * 37 % 23 / 10)
    if booking % 41 == 0 and activity_context().attempt == 1:
        raise ConnectionResetError("the ledger hung up")
    return "adds up"


@workflow
async def audit_ledger(ctx: WorkflowContext, bookings: int) -> str:
    """Every booking of a month, eight at a time."""
    found = await ctx.map(audit_booking, range(1, bookings + 1), max_concurrency=8)
    found.raise_if_failed()
    return f"{bookings} bookings add up"


# --- by the clock ------------------------------------------------------------------------------------------


@activity
async def collect_invoices(day: date) -> int:
    """How many are to be sent."""
    await takes(1.4)
    return 40 + day.day * 7 % 23


@activity(retry_policy=RetryPolicy(max_retries=1, initial_delay=60.0, jitter=False, never_on=(ApplicationError,)))
async def render_invoices(count: int, day: date) -> int:
    """As PDF. Every ninth day somebody has no tax number."""
    await takes(6.5)
    if day.toordinal() % 9 == 0:
        raise ApplicationError(f"3 of {count} invoices have no tax number", type="InvoiceIncomplete", retryable=False)
    return count


@workflow(version=2)
async def nightly_invoices(ctx: WorkflowContext) -> dict[str, int]:
    """Collect, render, send."""
    day = ctx.now().date()
    count = await ctx.execute_activity(collect_invoices, day)
    await ctx.execute_activity(render_invoices, count, day)
    await ctx.execute_activity(send_mail, "customers", f"{count} invoices")
    return {"sent": count}


@activity(retry_policy=RetryPolicy(max_retries=5, initial_delay=900.0, max_delay=3600.0, jitter=False))
async def fetch_rates(source: str) -> dict[str, float]:
    """What a currency costs."""
    await takes(0.7)
    if source == "backup":
        raise ConnectionError("rates-backup.example: name or service not known")
    return {"EUR/CHF": 0.9412, "EUR/USD": 1.0873}


@workflow
async def sync_exchange_rates(ctx: WorkflowContext, source: str = "main") -> dict[str, float]:
    """What a currency costs, four times a day."""
    return await ctx.execute_activity(fetch_rates, source)


@activity
async def freeze_accounts(year: int) -> int:
    """Nothing is booked any more."""
    await takes(1.0)
    return 214


@activity
async def archive_accounts(year: int, target: str) -> int:
    """Copies of them elsewhere."""
    await takes(1.0)
    return 214


@workflow
async def close_year(ctx: WorkflowContext, year: int) -> str:
    """Archives the accounts, then waits for the auditor. Until last week it froze them instead."""
    await ctx.execute_activity(archive_accounts, year, "cold-storage")
    await ctx.wait_for_signal("auditor_agrees")
    return f"{year} is closed"


ALL = (
    fulfil_order, track_parcel, refund_request, supplier_contract, onboard_customer, open_books, catalogue_import,
    audit_ledger, nightly_invoices, sync_exchange_rates, close_year,
    reserve_stock, release_stock, charge_card, refund_payment, send_mail, book_courier, ask_where, open_account,
    check_company, import_page, audit_booking, collect_invoices, render_invoices, fetch_rates, archive_accounts,
)  # fmt: skip
