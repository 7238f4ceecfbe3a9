"""What a finding says, and what is never one: what is recorded, and what a comment says is fine."""

from __future__ import annotations

import linecache
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from tests.lint.marked import Import, hold
from tinyworkflow_core.lint import Finding, check, describe


# --- the three lines ------------------------------------------------------------------------------
def test_chance_and_time_in_a_workflow_are_named_with_their_lines_and_what_to_write_instead(imported: Import) -> None:
    module = imported("""\
        import random
        import uuid
        from datetime import datetime

        async def wf(ctx):
            order_id = uuid.uuid4()
            started = datetime.now()
            await ctx.sleep(10)
            dice = random.randint(1, 6)
            return order_id, started, dice
        """)
    file = module.__file__
    assert describe(check(module.wf)).splitlines() == [
        f"{file}:6: uuid.uuid4() gives another value on each replay; write ctx.uuid4() instead",
        f"{file}:7: datetime.datetime.now() gives another value on each replay; write ctx.now() instead",
        f"{file}:9: random.randint() gives another value on each replay; write ctx.random().randint() instead",
    ]


def test_a_workflow_that_asks_its_context_has_no_findings(imported: Import) -> None:
    hold(
        imported("""\
        import asyncio
        import json
        import logging
        import uuid
        from datetime import UTC, datetime, timedelta

        log = logging.getLogger(__name__)

        async def wf(ctx, order):
            started = ctx.now()
            key = uuid.uuid5(uuid.NAMESPACE_URL, str(ctx.uuid4()))
            dice = ctx.random().randint(1, 6)
            print(f"{started:%H:%M}", json.dumps({"dice": dice}))
            log.info("started")
            async with asyncio.timeout(60):
                await asyncio.gather(asyncio.sleep(1), ctx.sleep("1h"))
            until = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=1)
            return datetime.fromisoformat(order["at"]) < until, key
        """)
    )


def test_a_finding_is_a_frozen_record_with_keywords() -> None:
    finding = Finding(file="w.py", line=3, what="x()", why="blocks", instead="y()")
    assert str(finding) == "w.py:3: x() blocks; write y() instead"
    with pytest.raises(FrozenInstanceError):
        finding.line = 4  # type: ignore[misc]  # that it cannot be is the point
    with pytest.raises(TypeError):
        Finding("w.py", 3, "x()", "blocks", "y()")  # type: ignore[call-arg]  # keywords only


def test_nothing_found_is_described_by_nothing() -> None:
    assert describe([]) == ""


def test_findings_come_by_file_and_line_and_the_same_one_only_once(imported: Import) -> None:
    module = imported("""\
        import uuid

        def helper():
            return uuid.uuid1()  #! uuid.uuid1()

        async def wf(ctx):
            helper(), helper()
            return [uuid.uuid4(), uuid.uuid4(), hash("a")]  #! uuid.uuid4() & hash()
        """)
    hold(module)


# --- activities -----------------------------------------------------------------------------------
def test_an_activity_called_like_a_function_is_refused_and_never_read(imported: Import) -> None:
    module = imported("""\
        import time
        from tinyworkflow_core import activity

        @activity
        def charge(amount):
            return time.time()

        @activity(name="mail")
        async def send(): ...

        async def wf(ctx):
            charge(10)  #! charge()
            await send()  #! send()
            charge.options(timeout="5s")(10)  #! charge.options(timeout='5s')()
            quick = charge.options(timeout="1s")
            quick(10)  #! quick()
            await ctx.execute_activity(charge, 10)
            await ctx.execute_activity(quick, 10)
        """)
    hold(module)
    assert str(check(module.wf)[0]).endswith(
        ":12: charge() runs the plain function, not recorded; write await ctx.execute_activity(charge, ...) instead"
    )


def test_an_activity_in_another_module_is_refused_as_well(imported: Import) -> None:
    other = imported("from tinyworkflow_core import activity\n@activity\ndef charge(): ...\n")
    hold(
        imported(f"""\
        import {other.__name__} as bank
        from {other.__name__} import charge as pay

        async def wf(ctx):
            bank.charge()  #! bank.charge()
            pay()  #! pay()
        """)
    )


def test_a_class_that_only_shares_the_name_is_no_activity(imported: Import) -> None:
    hold(
        imported("""\
        class ActivityDefinition:
            def __call__(self): ...

        charge = ActivityDefinition()

        async def wf(ctx):
            charge()
        """)
    )


def test_another_workflow_is_not_read(imported: Import) -> None:
    module = imported("""\
        import uuid
        from tinyworkflow_core import workflow

        @workflow
        async def child(ctx): ...

        async def dirty(ctx):
            return uuid.uuid4()

        async def wf(ctx):
            return await child(ctx)
        """)
    vars(module)["child"] = replace(module.child, fn=module.dirty)  # what the decorator itself would refuse
    assert check(module.wf) == []
    assert [one.what for one in check(module.child)] == ["uuid.uuid4()"]


def test_definitions_inside_of_a_workflow_are_not_read(imported: Import) -> None:
    hold(
        imported("""\
        import time
        import tinyworkflow_core
        from tinyworkflow_core import activity, workflow

        async def wf(ctx):
            @activity
            def one():
                return time.time()

            @tinyworkflow_core.activity(name="two")
            def two():
                return time.time()

            @workflow(name="three")
            async def three(ctx):
                return time.time()

            return one, two, three
        """)
    )


# --- side_effect ----------------------------------------------------------------------------------
def test_what_is_handed_to_side_effect_may_do_anything(imported: Import) -> None:
    hold(
        imported("""\
        import uuid
        from functools import partial

        def fresh():
            return uuid.uuid4()

        async def wf(ctx):
            def inner():
                return uuid.uuid4()
            def partly(x):
                return uuid.uuid4()
            small = lambda: uuid.uuid4()
            await ctx.side_effect(lambda: [uuid.uuid4(), open("x").read()])
            await ctx.side_effect(uuid.uuid4)
            await ctx.side_effect(fresh)
            await ctx.side_effect(fn=inner)
            await ctx.side_effect(partial(partly, 1))
            await ctx.side_effect(small)
            def other():
                return uuid.uuid4()  #! uuid.uuid4()
            return other
        """)
    )


def test_a_function_that_is_also_called_directly_is_read(imported: Import) -> None:
    hold(
        imported("""\
        import uuid

        def fresh():
            return uuid.uuid4()  #! uuid.uuid4()

        async def wf(ctx):
            def inner():
                return uuid.uuid1()  #! uuid.uuid1()
            await ctx.side_effect(fresh), await ctx.side_effect(inner)
            return fresh(), inner()
        """)
    )


# --- what a comment says is fine ------------------------------------------------------------------
def test_a_comment_says_that_a_line_is_fine(imported: Import) -> None:
    hold(
        imported("""\
        import uuid, time

        def helper():
            return uuid.uuid4()

        def other():
            return uuid.uuid4()  # tinyworkflow: ok

        async def wf(ctx):
            a = uuid.uuid4()  # tinyworkflow: ok
            a = uuid.uuid4()  #tinyworkflow:ok, constant at import
            a = uuid.uuid4()  # noqa: X1  # tinyworkflow: ok because it is never used
            b = ctx.f(  # tinyworkflow: ok
                uuid.uuid4(),
            )
            b = ctx.f(
                uuid.uuid4(),
            )  # tinyworkflow: ok
            c = ctx.f(
                uuid.uuid4(),  # tinyworkflow: ok
                time.time(),  #! time.time()
                time.strftime(
                    "%H"  # tinyworkflow: ok
                ),
            )
            global counter  # tinyworkflow: ok
            for one in {"a"}:  # tinyworkflow: ok
                d = uuid.uuid4()  #! uuid.uuid4()
            for one in {
                "a",
            }:  # tinyworkflow: ok
                pass
            if uuid.uuid4():  # tinyworkflow: ok
                pass
            elif uuid.uuid4():  #! uuid.uuid4()
                pass  # tinyworkflow: ok
            helper()  # tinyworkflow: ok
            other()
            e = uuid.uuid4()  #! uuid.uuid4()
            # tinyworkflow: ok
            e = uuid.uuid4(), "# tinyworkflow: ok"  #! uuid.uuid4()
            e = uuid.uuid4()  # tinyworkflow: okay  #! uuid.uuid4()
            match e:
                case 1:
                    pass  # tinyworkflow: ok
                case 2 if uuid.uuid4():  #! uuid.uuid4()
                    pass
            def inner():  # tinyworkflow: ok
                return uuid.uuid4()  #! uuid.uuid4()
        """)
    )


def test_a_comment_at_the_call_of_an_activity_says_that_it_is_fine(imported: Import) -> None:
    hold(
        imported("""\
        from tinyworkflow_core import activity

        @activity
        def pure(x): ...

        async def wf(ctx):
            pure(1)  # tinyworkflow: ok
            pure(1)  #! pure()
        """)
    )


def test_a_comment_counts_in_indented_code(imported: Import) -> None:
    module = imported("""\
        def make():
            import uuid

            async def wf(ctx):
                a = uuid.uuid4()  # tinyworkflow: ok
                return uuid.uuid4()  #! uuid.uuid4()

            return wf

        wf = make()
        """)
    hold(module)


def test_the_file_is_read_again_when_it_has_changed(imported: Import) -> None:
    module = imported("import uuid\nasync def wf(ctx): return uuid.uuid4()\n")
    assert len(check(module.wf)) == 1
    Path(str(module.__file__)).write_text("import uuid\nasync def wf(ctx): return uuid.uuid4()  # tinyworkflow: ok\n")
    assert check(module.wf) == []
    assert linecache.getline(str(module.__file__), 2).endswith("ok\n")
