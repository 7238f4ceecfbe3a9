"""Which names stand for what is refused."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tests.lint.marked import Import, body_of, hold
from tinyworkflow_core.lint import check


def test_other_names_for_the_same_thing_are_seen_through(imported: Import) -> None:
    hold(
        imported("""\
        import datetime as d
        import os.path as p
        import random as r
        from datetime import datetime as dt
        from os import stat as state
        from os.path import exists
        from random import randint, random
        from time import time
        from uuid import uuid4 as fresh
        from urllib.request import urlopen
        from asyncio import to_thread
        from concurrent.futures import ThreadPoolExecutor

        now = dt.now

        class Later(dt): ...

        async def wf(ctx):
            d.datetime.now()  #! datetime.datetime.now()
            r.choice([1])  #! random.choice()
            dt.now()  #! datetime.datetime.now()
            now()  #! datetime.datetime.now()
            Later.now()  #! datetime.datetime.now()
            randint(1, 2)  #! random.randint()
            random()  #! random.random()
            time()  #! time.time()
            fresh()  #! uuid.uuid4()
            state("x")  #! os.stat()
            exists("x"), p.isfile("x")  #! os.path.exists() & os.path.isfile()
            urlopen("x")  #! urllib.request.urlopen()
            await to_thread(print)  #! asyncio.to_thread()
            ThreadPoolExecutor()  #! concurrent.futures.ThreadPoolExecutor()
        """)
    )


def test_imports_inside_of_the_function_are_followed_even_before_they_happen(
    imported: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "requests", raising=False)  # others may have imported it before
    hold(
        imported("""\
        async def wf(ctx):
            import uuid as u, os.path, urllib.request
            import requests, google.cloud.storage as storage
            from datetime import datetime as dt
            from random import randint
            from google.cloud import pubsub
            from requests import get
            import psycopg
            from .time import time
            u.uuid4()  #! uuid.uuid4()
            dt.now(), randint(1, 2)  #! datetime.datetime.now() & random.randint()
            os.path.exists("x")  #! os.path.exists()
            urllib.request.urlopen("x")  #! urllib.request.urlopen()
            requests.post("x"), get("y")  #! requests.post() & requests.get()
            storage.Client()  #! google.cloud.storage.Client()
            pubsub.Client()  #! google.cloud.pubsub.Client()
            time(), ctx.f(psycopg.connect)
            psycopg.connect()  #! psycopg.connect()
        """)
    )
    assert "requests" not in sys.modules


def test_a_module_that_hands_names_on_is_seen_through(imported: Import) -> None:
    compat = imported("from uuid import uuid4\nimport time\n")
    hold(
        imported(f"""\
        import {compat.__name__} as compat
        from {compat.__name__} import uuid4 as fresh, time as clock

        async def wf(ctx):
            compat.uuid4()  #! uuid.uuid4()
            compat.time.time()  #! time.time()
            fresh()  #! uuid.uuid4()
            clock.time()  #! time.time()
        """)
    )


def test_a_class_that_calls_itself_otherwise_is_known_by_its_documented_name(
    imported: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = ModuleType("pandas")
    vars(pandas)["Timestamp"] = type("Timestamp", (), {"now": lambda: None, "__module__": "pandas._libs.tslibs"})
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    hold(
        imported("""\
        from pandas import Timestamp as T

        async def wf(ctx):
            return T.now()  #! pandas.Timestamp.now()
        """)
    )


def test_a_name_that_its_module_loads_late_is_known_once_it_is_there(
    imported: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = ModuleType("pandas")
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    hold(imported("async def wf(ctx): ...\n"))
    vars(pandas)["Timestamp"] = type("Timestamp", (), {"now": lambda: None, "__module__": "pandas._libs.tslibs"})
    hold(
        imported("""\
        from pandas import Timestamp as T

        async def wf(ctx):
            return T.now()  #! pandas.Timestamp.now()
        """)
    )


def test_a_name_of_ones_own_is_not_the_module_of_that_name(imported: Import) -> None:
    hold(
        imported("""\
        import random, time, uuid, datetime, os, secrets

        async def wf(ctx, random, *time, uuid=None, **os):
            random.random(), time.time(), uuid.uuid4(), os.environ["x"]
            datetime = ctx
            datetime.now()
            id = ctx.run_id
            id()
            ctx.time.time()
            ctx.random().random()
            for secrets in order:
                secrets.choice([])
            return (lambda hash: hash(1))(len)

        class order: ...
        """)
    )


@pytest.mark.parametrize(
    "line",
    [
        "with ctx as time: time.time()",
        "(time := ctx).time()",
        "[time := ctx for one in order]; time.time()",
        "[time.time() for time in order]",
        "{time: time.time() for time in order}",
        "import json as time; time.time()",
        "from json import loads as time; time.time()",
        "a, (b, *time) = order; time.time()",
        "time: int = ctx; time.time()",
        "time += 1; time.time()",
        "lambda time: time.time()",
        "lambda *, time: time.time()",
        "try: pass\nexcept ValueError as time: time.time()",
        "match order:\n    case [1, *time]: time.time()",
        "match order:\n    case {'a': 1, **time}: time.time()",
        "match order:\n    case str() as time: time.time()",
        "match order:\n    case time: time.time()",
        "def time(): ...\ntime.time()",
        "async def time(): ...\ntime.time()",
        "class time: ...\ntime.time()",
        "def f(time, /): time.time()",
        "def f():\n    nonlocal order\n    order.time()",
        "for time in order: time.time()",
        "async for time in order: time.time()",
        "import time\ntime = ctx\ntime.time()",
        "time = ctx\nimport time\ntime.time()",
        "class C:\n    time = ctx\n    time.time()",
        "del time; time.time()",
    ],
)
def test_every_way_to_bind_a_name_hides_the_module(imported: Import, line: str) -> None:
    assert check(imported("import time\n" + body_of(line)).wf) == []


def test_a_name_hides_the_module_only_where_it_is_bound(imported: Import) -> None:
    hold(
        imported("""\
        import time

        async def wf(ctx, items):
            def f(time):
                return time.time()
            g = lambda time: time.time()
            h = [time.time() for time in items]
            i = [time for time in ctx.f(time.time())]  #! time.time()
            j = lambda: (time := ctx)
            def k(clock):
                return clock.time()
            class C:
                time = 1
            import time as clock
            import time as clock
            clock.time()  #! time.time()
            return time.time()  #! time.time()
        """)
    )


def test_a_global_declaration_leads_past_the_local_names(imported: Import) -> None:
    hold(
        imported("""\
        import uuid

        async def wf(ctx):
            def f():
                global uuid  #! global uuid
                uuid = uuid
                return uuid.uuid4()  #! uuid.uuid4()
            return f()
        """)
    )


def test_names_from_the_function_around_are_known(imported: Import) -> None:
    module = imported("""\
        def make():
            import uuid
            from time import time as clock

            def helper():
                return clock()  #! time.time()

            async def wf(ctx):
                helper()
                return uuid.uuid4(), late  #! uuid.uuid4()

            yield wf
            late = 1

        wf = next(make())
        """)
    hold(module)


def test_nobodys_property_or_lazy_attribute_is_asked_for(imported: Import) -> None:
    hold(
        imported("""\
        import types, sys

        class Trap:
            def __getattribute__(self, name): raise AssertionError(name)
            def __eq__(self, other): raise AssertionError
            def __bool__(self): raise AssertionError
            __hash__ = None

        class LazyModule(types.ModuleType):
            def __getattribute__(self, name): raise AssertionError(name)

        trap, lazy = Trap(), LazyModule("lazy")

        def __getattr__(name): raise AssertionError(name)

        self = sys.modules[__name__]

        async def wf(ctx):
            trap(), trap.x(), trap.x.y, lazy.x(), lazy.x.y, self.missing(), self.missing
            for one in trap: pass
            return trap.options()(1), trap / 2
        """)
    )
