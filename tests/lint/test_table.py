"""What workflow code may not do."""

from __future__ import annotations

import pytest

from tests.lint.marked import Import, body_of, hold
from tinyworkflow_core.lint import check

TIME = "gives another value on each replay"
WORLD = "is done again on each replay"


@pytest.mark.parametrize(
    ("code", "what", "why", "instead"),
    [
        ("datetime.datetime.utcnow()", "datetime.datetime.utcnow()", TIME, "ctx.now()"),
        ("datetime.datetime.today()", "datetime.datetime.today()", TIME, "ctx.now()"),
        ("datetime.datetime.now(datetime.UTC)", "datetime.datetime.now()", TIME, "ctx.now()"),
        ("datetime.date.today()", "datetime.date.today()", TIME, "ctx.now().date()"),
        ("time.time()", "time.time()", TIME, "ctx.now().timestamp()"),
        ("time.time_ns()", "time.time_ns()", TIME, "ctx.now().timestamp()"),
        ("time.monotonic()", "time.monotonic()", TIME, "ctx.now()"),
        ("time.perf_counter()", "time.perf_counter()", TIME, "ctx.now()"),
        ("time.localtime()", "time.localtime()", TIME, "ctx.now()"),
        ("time.gmtime(None)", "time.gmtime()", TIME, "ctx.now()"),
        ("time.strftime('%H')", "time.strftime()", TIME, "ctx.now().strftime(...)"),
        ("time.sleep(1)", "time.sleep()", "blocks every run of this process", "await ctx.sleep(...)"),
        ("uuid.uuid1()", "uuid.uuid1()", TIME, "ctx.uuid4()"),
        ("random.random()", "random.random()", TIME, "ctx.random().random()"),
        ("random.shuffle([])", "random.shuffle()", TIME, "ctx.random().shuffle()"),
        ("random.Random()", "random.Random()", TIME, "ctx.random()"),
        ("random.Random(None)", "random.Random()", TIME, "ctx.random()"),
        ("random.SystemRandom(7)", "random.SystemRandom()", TIME, "ctx.random()"),
        ("secrets.token_hex()", "secrets.token_hex()", TIME, "await ctx.side_effect(...)"),
        ("os.urandom(4)", "os.urandom()", TIME, "await ctx.side_effect(...)"),
        ("hash('a')", "hash()", "differs between processes", "hashlib.sha256(...)"),
        ("id(ctx)", "id()", "differs between processes", "ctx.uuid4() or a key of your own"),
        ("input()", "input()", "waits for somebody at this process", "await ctx.wait_for_signal(...)"),
        ("open('x')", "open()", WORLD, "an activity and await ctx.execute_activity(...)"),
        ("os.listdir()", "os.listdir()", WORLD, "an activity and await ctx.execute_activity(...)"),
        ("os.stat('x')", "os.stat()", WORLD, "an activity and await ctx.execute_activity(...)"),
        ("os.path.exists('x')", "os.path.exists()", WORLD, "an activity and await ctx.execute_activity(...)"),
        ("pathlib.Path.cwd()", "pathlib.Path.cwd()", WORLD, "an activity and await ctx.execute_activity(...)"),
        ("subprocess.run('x')", "subprocess.run()", WORLD, "an activity and await ctx.execute_activity(...)"),
        ("socket.create_connection(1)", "socket.create_connection()", WORLD, None),
        ("smtplib.SMTP()", "smtplib.SMTP()", WORLD, None),
        ("sqlite3.connect('x')", "sqlite3.connect()", WORLD, None),
        ("urllib.request.urlopen('x')", "urllib.request.urlopen()", WORLD, "await ctx.call_http(...) or an activity"),
        ("httpx.get('x')", "httpx.get()", WORLD, "await ctx.call_http(...) or an activity"),
        ("httpx.AsyncClient()", "httpx.AsyncClient()", WORLD, None),
        ("google.cloud.firestore.Client()", "google.cloud.firestore.Client()", WORLD, None),
        ("asyncio.create_subprocess_exec('x')", "asyncio.create_subprocess_exec()", WORLD, None),
        ("asyncio.open_connection('x')", "asyncio.open_connection()", WORLD, None),
        ("asyncio.to_thread(print)", "asyncio.to_thread()", None, None),
        ("asyncio.run(1)", "asyncio.run()", None, "await"),
        ("threading.Thread()", "threading.Thread()", None, "asyncio.gather(...) over activities"),
        ("multiprocessing.Pool()", "multiprocessing.Pool()", None, "asyncio.gather(...) over activities"),
        ("concurrent.futures.ThreadPoolExecutor()", "concurrent.futures.ThreadPoolExecutor()", None, None),
        ("requests.get('x')", "requests.get()", WORLD, "await ctx.call_http(...) or an activity"),
        ("aiohttp.ClientSession()", "aiohttp.ClientSession()", WORLD, "await ctx.call_http(...) or an activity"),
        ("boto3.client('s3')", "boto3.client()", WORLD, None),
        ("os.getenv('X')", "os.getenv()", "may differ where the run goes on", None),
    ],
)  # fmt: skip
def test_what_a_replay_cannot_repeat_is_refused(
    imported: Import, code: str, what: str, why: str | None, instead: str | None
) -> None:
    root = code.partition("(")[0].rpartition(".")[0]
    lines = [f"import {root.removesuffix('.datetime').removesuffix('.date').removesuffix('.Path')}"] if root else []
    [finding] = check(imported(body_of(*lines, code)).wf)
    assert (finding.what, finding.line) == (what, 2 + len(lines))
    assert finding.why == (why or finding.why)
    assert finding.instead == (instead or finding.instead)


@pytest.mark.parametrize(
    "code",
    [
        "uuid.uuid5(uuid.NAMESPACE_DNS, 'x')",
        "random.Random(ctx.run_id).random()",
        "random.Random(x=order)",
        "random.Random(*order)",
        "time.strftime('%H', order)",
        "time.gmtime(0)",
        "time.strftime(*order)",
        "time.strftime(**order)",
        "datetime.datetime.fromtimestamp(0)",
        "secrets.compare_digest('a', 'b')",
        "os.path.join('a', 'b')",
        "pathlib.Path('a').name",
        "pathlib.PurePath('a') / 'b'",
        "httpx.URL('x')",
        "socket.AF_INET",
        "print('x')",
        "asyncio.create_task(ctx.sleep(1))",
    ],
)
def test_what_looks_alike_and_is_the_same_on_each_replay_is_fine(imported: Import, code: str) -> None:
    root = code.partition("(")[0].partition(".")[0]
    lines = [] if root == "print" else [f"import {root}"]
    assert check(imported(body_of(*lines, code)).wf) == []


def test_an_exception_class_may_be_caught_made_and_asked_for(imported: Import) -> None:
    hold(
        imported("""\
        import random, subprocess, threading, httpx

        async def wf(ctx, dice: random.Random):
            try:
                found: random.Random = dice
                await ctx.sleep(1)
            except (subprocess.CalledProcessError, httpx.HTTPError):
                raise subprocess.TimeoutExpired("x", 1)
            return isinstance(found, (random.Random, threading.Thread))
        """)
    )


def test_the_environment_is_refused_however_it_is_read(imported: Import) -> None:
    hold(
        imported("""\
        import os
        from os import environ as env

        async def wf(ctx):
            a = os.environ["A"]  #! os.environ
            b = os.environ.get("B")  #! os.environ
            os.environ["C"] = "c"  #! os.environ
            return a, b, env["D"], "E" in env  #! os.environ
        """)
    )


def test_paths_are_refused_where_they_touch_the_disk(imported: Import) -> None:
    hold(
        imported("""\
        import pathlib
        from pathlib import Path

        ROOT = Path("root")

        async def wf(ctx, given):
            path = Path("a")
            path.read_text()  #! pathlib.Path.read_text()
            Path("a").write_text("x")  #! pathlib.Path.write_text()
            (pathlib.Path("a") / "b" / given).exists()  #! pathlib.Path.exists()
            ROOT.stat()  #! pathlib.Path.stat()
            below = path / "c"
            with below.open() as file:  #! pathlib.Path.open()
                pass
            either = Path("a")
            either = given
            either.read_text()
            again = again / "x"
            again.read_text()
            (ROOT / "a" / "b").read_bytes()  #! pathlib.Path.read_bytes()
            there = ROOT / "c"
            there.unlink()  #! pathlib.Path.unlink()
            return given.read_text(), path.suffix, ROOT / "x"
        """)
    )


def test_objects_of_the_module_are_known_by_their_class(imported: Import) -> None:
    hold(
        imported("""\
        import random
        import httpx

        client = httpx.AsyncClient()
        dice = random.Random(7)
        base = httpx.URL("http://x")

        class Client:
            def get(self, url): ...
            @property
            def now(self): raise AssertionError("the lint asked")

        class Careful(httpx.AsyncClient):
            def get(self, url): ...

        mine, careful = Client(), Careful()

        async def wf(ctx):
            await client.get("x")  #! httpx.AsyncClient.get()
            dice.random()  #! random.Random.random()
            base.join("y")
            (client / 2).get("x")
            await mine.get("x"), mine.now, mine.now.later()
            careful.get("x")
            await careful.post("x")  #! httpx.AsyncClient.post()
        """)
    )


def test_an_executor_is_refused_on_whatever_loop(imported: Import) -> None:
    hold(
        imported(
            body_of("await ctx.loop().run_in_executor(None, print)  #! run_in_executor()", "return ctx.run_in_executor")
        )
    )


def test_a_loop_over_a_set_needs_an_order(imported: Import) -> None:
    hold(
        imported("""\
        async def wf(ctx, names):
            for name in {"a", "b"}:  #! a loop over a set
                await ctx.sleep(name)
            for name in set(names):  #! a loop over a set
                pass
            for name in frozenset(names) - {"a"}:  #! a loop over a set
                pass
            for name in {name.lower() for name in names}:  #! a loop over a set
                pass
            waits = [ctx.sleep(name) for name in set(names)]  #! a loop over a set
            for name in sorted(set(names)):
                pass
            for number in {1, 2}:
                pass
            for name in set():
                pass
            if "a" in {"a", "b"}:
                pass
            same = {name for name in set(names)}
            return waits, same, any(name for name in set(names)), sorted([name for name in set(names)])
        """)
    )


def test_a_loop_over_a_set_is_told_to_sort(imported: Import) -> None:
    [finding] = check(imported(body_of("for one in set(order): pass")).wf)
    assert str(finding).endswith("a loop over a set has another order in each process; write sorted(...) instead")


def test_a_set_of_ones_own_is_not_a_set(imported: Import) -> None:
    hold(imported(body_of("for one in order.set(1): pass", "set = sorted", "for one in set(order): pass")))


def test_a_global_variable_is_refused_and_a_nonlocal_one_is_fine(imported: Import) -> None:
    hold(
        imported("""\
        counter = total = 0

        async def wf(ctx):
            global counter, total  #! global counter, total
            counter += 1
            mine = 0
            def add():
                nonlocal mine
                mine += 1
            add()
            return mine, total
        """)
    )


def test_a_function_that_is_handed_on_is_refused_like_a_call(imported: Import) -> None:
    hold(
        imported("""\
        import time, uuid
        from dataclasses import field
        from datetime import datetime

        async def wf(ctx, items):
            ids = map(uuid.uuid4, items)  #! uuid.uuid4
            now = datetime.now  #! datetime.datetime.now
            return now(), field(default_factory=time.time), ids  #! time.time
        """)
    )
