"""What people do at the dashboard, done by hand in a real Chromium: the page's own policy and script are at work, and
whatever is out of order in a page, on its console or among its requests fails the walk."""

from __future__ import annotations

import pytest
from playwright.async_api import Dialog, expect

from tests.browser.conftest import KEY, Service
from tests.browser.person import NARROW, Person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_run_is_started_by_the_form_of_its_workflow_and_its_page_follows_it_without_being_loaded_again(
    person: Person, service: Service
) -> None:
    page = person.page
    await page.get_by_role("link", name="Start a run").click()
    await page.get_by_role("link", name="order", exact=True).click()
    await page.get_by_label("item").fill("lamp")
    await page.get_by_label("amount").fill("many")
    await page.get_by_label("packing").select_option("bag")
    person.expect(422)
    await page.get_by_role("button", name="Start run").click()
    await expect(page.get_by_role("alert")).to_contain_text("Nothing was started")
    await person.look()
    await page.get_by_role("alert").get_by_role("link").click()
    await expect(page.get_by_label("amount")).to_be_focused()
    await expect(page.get_by_label("item")).to_have_value("lamp")

    await page.clock.install()
    await page.get_by_label("amount").fill("3")
    await page.get_by_role("button", name="Start run").click()
    await page.wait_for_url("**/ui/runs/*")
    run_id = page.url.partition("?")[0].rpartition("/")[2]
    service.wait(run_id, "waiting")
    await page.evaluate("() => { window.mark = 'not loaded again' }")
    await page.clock.fast_forward(6_000)
    await expect(page.get_by_text("waits for the money")).to_be_visible()
    await expect(page.locator("#run-status")).to_have_text("waiting")
    await page.locator("#event-1 summary").click()

    service.signal(run_id, "paid")
    service.wait(run_id, "completed")
    await page.clock.fast_forward(6_000)
    await expect(page.locator("#run-status")).to_have_text("completed")
    await expect(page.get_by_text("sent 3 x lamp").first).to_be_visible()
    assert await page.evaluate("() => window.mark") == "not loaded again"
    await expect(page.locator("#event-1 details")).to_have_attribute("open", "")


async def test_a_question_is_decided_from_the_inbox_and_on_the_page_of_its_run(
    person: Person, service: Service
) -> None:
    page = person.page
    service.start("expense", 80, "expense-of-the-inbox", "paused")
    service.start("expense", 90, "expense-of-its-page", "paused")
    await page.get_by_role("link", name="Approvals").click()
    await page.get_by_role("link", name="Pay 80.00?", exact=True).click()
    await page.get_by_label("comment").fill("fine by me")
    person.expect(422)
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("alert")).to_contain_text("Nothing was decided yet")
    await person.look()
    await page.get_by_label("Who are you?").select_option("ada")
    await page.get_by_role("button", name="Approve").click()
    await expect(page.get_by_role("status").first).to_contain_text("You have approved this.")
    await person.look()
    await page.get_by_role("status").get_by_role("link", name="expense-of-the-inbox").click()
    service.wait("expense-of-the-inbox", "completed")
    assert service.run("expense-of-the-inbox")["output"] == "paid by ada"

    await person.go("/ui/runs/expense-of-its-page")
    await page.get_by_label("Who are you?").select_option("bob")
    await page.get_by_role("button", name="Reject").click()
    service.wait("expense-of-its-page", "completed")
    assert service.run("expense-of-its-page")["output"] == "refused by bob"


async def test_a_failed_run_is_retried_once_its_cause_is_gone(person: Person, service: Service) -> None:
    page = person.page
    service.start("delivery", "piano", "delivery-1", "failed")
    await page.get_by_role("link", name="failed").click()
    await page.get_by_role("link", name="delivery-1").click()
    why = page.get_by_role("region", name="Why it failed")
    await expect(why).to_contain_text("there is no van")
    await expect(why).to_contain_text("caused by FileNotFoundError: the yard is empty")
    service.van.touch()
    try:
        await page.get_by_role("button", name="Retry from the failure").click()
        await expect(page.get_by_text("The run goes on from where it failed.")).to_be_visible()
        service.wait("delivery-1", "completed")
    finally:
        service.van.unlink()
    await page.reload()
    await expect(page.get_by_label("Output")).to_contain_text("loaded 1 x piano")
    await expect(why).to_have_count(0)


async def test_a_run_is_forked_from_one_of_its_events_with_another_input(person: Person, service: Service) -> None:
    page = person.page
    service.start("order", {"item": "desk"}, "order-of-a-desk", "waiting")
    await person.go("/ui/runs/order-of-a-desk")
    await page.locator("#event-1 summary").click()
    await page.locator("#event-1").get_by_role("link", name="Fork from here").click()
    await expect(page.get_by_label("After event")).to_have_value("1")
    given = page.get_by_label("Its input")
    await given.fill((await given.input_value()).replace('"desk"', '"chair"'))
    await page.get_by_role("button", name="Start the fork").click()
    await expect(page.get_by_text("This run was made from the first events of another.")).to_be_visible()
    fork = page.url.partition("?")[0].rpartition("/")[2]
    service.wait(fork, "waiting")
    assert service.run(fork)["input"]["item"] == "chair"
    assert service.run("order-of-a-desk")["input"]["item"] == "desk"
    await page.get_by_role("link", name="difference").click()
    await expect(page.get_by_role("heading", name="Difference of two runs")).to_be_visible()
    await person.look()


async def test_a_signal_is_sent_by_its_form_and_what_cannot_be_read_is_said_next_to_it(
    person: Person, service: Service
) -> None:
    page = person.page
    service.start("order", {"item": "sofa"}, "order-of-a-sofa", "waiting")
    await page.clock.install()
    await person.go("/ui/runs/order-of-a-sofa")
    await page.get_by_text("Send a signal").click()
    await page.get_by_label("Name", exact=True).fill("paid")
    await page.get_by_label("Payload").fill("{not json")
    person.expect(400, 422)
    await page.get_by_role("button", name="Send the signal").click()
    await expect(page.get_by_role("alert")).to_contain_text("Nothing was done (signal)")
    await page.clock.fast_forward(60_000)  # what was typed is there for as long as it takes to mend it
    await person.look()
    await expect(page.get_by_label("Payload")).to_have_value("{not json")
    await page.get_by_label("Payload").fill('{"by": "card"}')
    await page.get_by_role("button", name="Send the signal").click()
    await expect(page.get_by_text("The signal is stored.")).to_be_visible()
    service.wait("order-of-a-sofa", "completed")


async def test_a_schedule_is_paused_and_resumed(person: Person, service: Service) -> None:
    page = person.page
    await page.get_by_role("link", name="Schedules").click()
    await page.get_by_role("link", name="nightly", exact=True).click()
    asked: list[str] = []

    async def answer(dialog: Dialog) -> None:
        asked.append(dialog.message)
        await (dialog.accept() if len(asked) > 1 else dialog.dismiss())

    page.on("dialog", answer)
    pause = page.get_by_role("button", name="Pause schedule")
    await page.get_by_label("Pause it, because").fill("the ledger is being moved")
    await pause.click()
    await expect(pause).to_be_visible()
    assert not service.api.get("/v1/schedules/nightly").json()["paused"]
    await pause.click()
    await expect(page.get_by_text("the ledger is being moved")).to_be_visible()
    assert asked == ["Pause this schedule? It starts nothing until it is resumed."] * 2
    assert service.api.get("/v1/schedules/nightly").json()["paused"]
    await person.look()
    await page.get_by_role("button", name="Resume schedule").click()
    await expect(pause).to_be_visible()
    assert not service.api.get("/v1/schedules/nightly").json()["paused"]


async def test_a_stranger_signs_in_with_a_key_of_the_service_and_with_no_other_and_signs_out(stranger: Person) -> None:
    page = stranger.page
    await stranger.go("/ui/schedules?after=a")
    await expect(page.get_by_label("API key")).to_be_focused()
    stranger.expect(401)
    await stranger.sign_in("a-key-of-another-house")
    await expect(page.get_by_role("alert")).to_contain_text("none of this service's API keys")
    await stranger.look()
    await stranger.sign_in(KEY)
    await expect(page.get_by_role("heading", name="Schedules")).to_be_visible()
    assert page.url == f"{stranger.address}/ui/schedules?after=a"

    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    await page.go_back()
    await stranger.go("/ui/runs")
    await expect(page.get_by_label("API key")).to_be_visible()


async def test_a_run_is_reached_opened_and_left_by_the_keyboard_alone(person: Person, service: Service) -> None:
    page, keys = person.page, person.page.keyboard
    service.start("order", {"item": "rug"}, "order-of-a-rug", "waiting")
    await page.reload()
    await keys.press("Tab")
    skip = page.get_by_role("link", name="Skip to the content")
    await expect(skip).to_be_focused()
    await expect(skip).to_be_in_viewport()
    await keys.press("Enter")
    await expect(page.locator("main")).to_be_focused()
    await keys.press("Tab")
    assert await page.evaluate("() => document.activeElement.closest('main') !== null")

    wanted = page.get_by_role("link", name="order-of-a-rug")
    for _ in range(60):
        await keys.press("Tab")
        assert await page.evaluate("() => document.activeElement.matches(':focus-visible')")
        if await wanted.evaluate("one => one === document.activeElement"):
            break
    await expect(wanted).to_be_in_viewport()
    await keys.press("Enter")
    await expect(page.get_by_role("heading", name="order-of-a-rug")).to_be_visible()


async def test_on_a_phone_a_run_is_found_and_cancelled(person: Person, service: Service) -> None:
    page = person.page
    await page.set_viewport_size({"width": NARROW, "height": 844})
    service.start("order", {"item": "bed"}, "order-of-a-bed", "waiting")
    await page.get_by_label("Run or workflow ID").fill("order-of-a-bed")
    await page.get_by_role("button", name="Filter").click()
    await page.get_by_role("checkbox", name="Choose order-of-a-bed").check()
    await page.get_by_role("button", name="Cancel…").click()
    await expect(page.get_by_role("heading", name="Cancel 1 run?")).to_be_visible()
    await person.look()
    await page.get_by_role("button", name="Cancel 1 run").click()
    await expect(page.get_by_role("heading", name="Cancel: done for 1 of 1 runs")).to_be_visible()
    service.wait("order-of-a-bed", "cancelled")
