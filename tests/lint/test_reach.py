"""Which code is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest

from tests.lint.marked import Import, body_of, hold, marked, refused
from tinyworkflow_core import workflow
from tinyworkflow_core.lint import check


# --- where it looks -------------------------------------------------------------------------------
def test_helpers_of_the_module_are_read_two_calls_deep_and_no_deeper(imported: Import) -> None:
    hold(
        imported("""\
        import uuid

        def third():
            return uuid.uuid4()

        async def second():
            return uuid.uuid4(), third()  #! uuid.uuid4()

        async def first():
            x = uuid.uuid1()  #! uuid.uuid1()
            return await second()

        def not_called():
            return uuid.uuid4()

        async def wf(ctx):
            return await first(), not_called
        """)
    )


def test_a_helper_that_is_also_called_directly_is_read_at_that_depth(imported: Import) -> None:
    hold(
        imported("""\
        import uuid

        def third():
            return uuid.uuid4()  #! uuid.uuid4()

        def second():
            return third()

        def first():
            return second()

        async def wf(ctx):
            first()
            second()
        """)
    )


def test_helpers_that_call_each_other_end(imported: Import) -> None:
    hold(
        imported("""\
        import uuid

        def ping(n):
            return pong(n), uuid.uuid4()  #! uuid.uuid4()

        def pong(n):
            return ping(n), wf(n)

        async def wf(ctx):
            return ping(1), await wf(ctx)
        """)
    )


def test_helpers_of_other_modules_and_methods_are_not_read(imported: Import) -> None:
    other = imported("import uuid\ndef helper():\n    return uuid.uuid4()\n")
    hold(
        imported(f"""\
        import uuid
        from {other.__name__} import helper

        class Thing:
            def __init__(self):
                self.id = uuid.uuid4()
            def fresh(self):
                return uuid.uuid4()

        async def wf(ctx):
            return helper(), Thing().fresh()
        """)
    )


def test_decorated_helpers_are_read_below_their_decorators(imported: Import) -> None:
    hold(
        imported("""\
        import functools, uuid
        from contextlib import contextmanager

        def loud(fn):
            @functools.wraps(fn)
            def wrapper(*args):
                return fn(*args), uuid.uuid1()
            return wrapper

        @loud
        @loud
        def one():
            return uuid.uuid4()  #! uuid.uuid4()

        @functools.lru_cache(
            maxsize=3,
        )
        def two(
            x=uuid.uuid4(),
        ):
            return uuid.uuid4()  #! uuid.uuid4()

        @contextmanager
        def three():
            yield uuid.uuid4()  #! uuid.uuid4()

        four = functools.partial(lambda x: uuid.uuid4(), 1)  #! uuid.uuid4()

        @loud
        async def wf(ctx, at=uuid.uuid4()):
            with three():
                return one(), two(), four(), uuid.uuid1()  #! uuid.uuid1()
        """)
    )


def test_a_helper_further_down_is_read_while_its_module_is_still_being_imported(imported: Import) -> None:
    module = imported("""\
        import functools, uuid
        import tinyworkflow_core as tw
        from tinyworkflow_core import activity, workflow
        from tinyworkflow_core.lint import check

        async def wf(ctx):
            charge(1)  #! charge()
            book(1)  #! book()
            child(ctx)
            decorated()
            ctx.helper(), missing()
            await helper()
        early = check(wf)

        @activity
        def charge(x):
            return uuid.uuid4()

        @tw.activity(
            name="book",
        )
        async def book(x): ...

        @workflow(lint="off")
        async def child(ctx):
            return uuid.uuid4()

        @functools.cache
        # with a comment
        def decorated():
            return uuid.uuid1()  #! uuid.uuid1()

        async def helper():
            return deeper()
        def deeper(): return uuid.uuid4()  #! uuid.uuid4()
        """)
    assert refused(module.early) == marked(module)
    hold(module)


def test_functions_and_lambdas_inside_are_read(imported: Import) -> None:
    hold(
        imported("""\
        import uuid

        async def wf(ctx, items):
            def inner(x=uuid.uuid1()):  #! uuid.uuid1()
                def innermost():
                    return uuid.uuid4()  #! uuid.uuid4()
                return innermost()

            class Local:
                id = uuid.uuid4()  #! uuid.uuid4()
                def method(self):
                    return uuid.uuid4()  #! uuid.uuid4()

            key = lambda x, y=uuid.uuid1(): (  #! uuid.uuid1()
                uuid.uuid4()  #! uuid.uuid4()
            )
            return sorted(items, key=lambda x: uuid.uuid4()), inner(), key, Local  #! uuid.uuid4()
        """)
    )


def test_every_kind_of_statement_and_expression_is_read(imported: Import) -> None:
    hold(
        imported(
            """\
        import time
        from time import time as t

        async def wf(ctx, items):
            text = f"{time.time():>{t()}} {items!r}"  #! time.time()
            if (now := time.time()) > 1:  #! time.time()
                pass
            elif t():  #! time.time()
                pass
            while t(): break  #! time.time()
            match items:
                case [x] if t():  #! time.time()
                    t()  #! time.time()
            async for one in t(): pass  #! time.time()
            async with t() as two: pass  #! time.time()
            try:
                t()  #! time.time()
            except ValueError:
                t()  #! time.time()
            else:
                t()  #! time.time()
            finally:
                t()  #! time.time()
            rows = [t() async for row in items]  #! time.time()
            rows = {row: t() for row in items}  #! time.time()
            rows = (row for row in t())  #! time.time()
            rows = [row for row in items if t()]  #! time.time()
            items[t()] = items.x = await t()  #! time.time()
            whole: t() = t()  #! time.time()
            part: t() = 1
            def typed(x: t(), *y: t()) -> t(): ...
            assert t(), t()  #! time.time()
            ctx.f(*t(), **t())  #! time.time()
            ctx.f(t)(t())  #! time.time & time.time()
            del items[t()]  #! time.time()
            raise t() from t()  #! time.time()
        """
        )
    )


def test_an_expression_in_a_text_of_many_lines_is_found(imported: Import) -> None:
    module = imported('import time\nasync def wf(ctx):\n    return f"""\n    {time.time()}\n    """\n')
    assert refused(check(module.wf)) == [(4, "time.time()")]


def test_text_in_the_first_columns_does_not_end_a_function(imported: Import) -> None:
    hold(
        imported("""\
        import uuid

        class Flows:
            async def wf(
                self, ctx
            ):
                text = '''
        async def other():
        '''
                items = [
        1,
        ]
        # a comment
                return uuid.uuid4(), text, items  #! uuid.uuid4()

            other = uuid.uuid4()

        wf = Flows().wf
        """)
    )


def test_a_comment_in_the_first_column_does_not_end_a_function(imported: Import) -> None:
    hold(
        imported("""\
        import uuid
        async def wf(ctx):
            x = 1
        # a comment

            return uuid.uuid4()  #! uuid.uuid4()
        """)
    )


def test_a_parameter_is_not_the_helper_of_that_name(imported: Import) -> None:
    hold(
        imported("""\
        import uuid
        def helper():
            return uuid.uuid4()
        async def wf(ctx, helper):
            return helper()
        """)
    )


def test_methods_partials_and_definitions_are_read_like_functions() -> None:
    import uuid

    def loud(fn: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fn)
        def wrapper(*args: Any) -> Any:
            return fn(*args)

        return wrapper

    class Flows:
        async def method(self, ctx: Any) -> Any:
            return uuid.uuid4()

        @classmethod
        async def of_the_class(cls, ctx: Any) -> Any:
            return uuid.uuid4()

    @loud
    async def decorated(ctx: Any) -> Any:
        return uuid.uuid4()

    @workflow(name="clean")
    async def definition(ctx: Any) -> None: ...

    functions: list[Callable[..., Any]] = [
        Flows.method,
        Flows().method,
        Flows.of_the_class,
        decorated,
        partial(decorated, 1),
        partial(Flows().method),
        replace(definition, fn=decorated),
        lambda ctx: uuid.uuid4(),
    ]
    assert [[one.what for one in check(fn)] for fn in functions] == [["uuid.uuid4()"]] * len(functions)


# --- no source ------------------------------------------------------------------------------------
def test_a_function_without_source_has_no_findings() -> None:
    space: dict[str, Any] = {}
    exec("import uuid\nasync def wf(ctx):\n    return uuid.uuid4()\n", space)
    assert check(space["wf"]) == []


def circle() -> Callable[..., Any]:
    def one() -> None: ...

    one.__wrapped__ = one  # type: ignore[attr-defined]  # a broken decorator
    return one


class Called:
    def __call__(self) -> None: ...


@pytest.mark.parametrize("thing", [print, len, dict, Called(), Called, circle(), "".join, partial(print), None, 1])
def test_what_is_no_python_function_has_no_findings(thing: Any) -> None:
    assert check(thing) == []


def test_of_two_lambdas_in_a_line_nobody_can_tell_which_one_it_is(imported: Import) -> None:
    module = imported("import uuid\na, wf = lambda ctx: uuid.uuid4(), lambda ctx: 1\n")
    assert check(module.wf) == []


@pytest.mark.parametrize(
    "changed",
    ["", "\n" * 9, "# all\n# gone\n", "x = 1\ny = (\n", "import uuid\nasync def other(ctx): return uuid.uuid4()\n",
     "import uuid\nasync def wf(c): return uuid.uuid4()\n", "import uuid\nasync def wf(ctx:\n"],
)  # fmt: skip
def test_a_file_that_was_changed_since_gives_no_findings_of_something_else(imported: Import, changed: str) -> None:
    module = imported("import uuid\nasync def wf(ctx): return uuid.uuid4()\n")
    Path(str(module.__file__)).write_text(changed)
    assert check(module.wf) == []


def test_code_deeper_than_the_stack_gives_no_error(imported: Import) -> None:
    hold(imported("import uuid\n" + body_of("a = uuid.uuid4()  #! uuid.uuid4()", "return ctx" + ".f()" * 400)))
