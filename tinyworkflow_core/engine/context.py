"""WorkflowContext: what workflow code may call.

Everything here is a function of the run's history, so it gives the same answer in every replay. Whatever touches the
world is a command for the journal; waiting is waiting for the event that ends it. How that is done stands in
`asking`, `approving`, `handlers`, `batch`, `children` and `versioning`; this is the face.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random  # noqa: TID251  # only random.Random with a seed, which is the same in every replay
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, ParamSpec, TypeVar, Unpack, overload
from uuid import UUID

from .. import outbound
from ..clock import Duration, moment, seconds, timestamp
from ..errors import ContinueAsNew
from ..exchange import HttpResponse
from ..outbound import CallOptions
from ..records import dataclass
from ..registry import WorkflowDefinition
from ..serialization import Codec
from .approving import Approval, Approving, Question
from .asking import ActivityCall, Asking, activity_definition
from .batch import BatchResult, Completion, run_batch
from .children import ChildHandle
from .commands import ParentClosePolicy
from .handlers import Handlers
from .journal import Journal
from .step import ReplayLogger, Step
from .versioning import Patches

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

CONTINUE_AS_NEW_EVENTS = 2_000
"""`should_continue_as_new` from so many events on: each wake-up reads and replays them all."""

_log = logging.getLogger("tinyworkflow.workflow")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What a run knows about itself from the start."""

    run_id: str
    workflow_id: str
    name: str
    version: int
    generation: int = 0
    parent_run_id: str | None = None
    retry_count: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleInfo:
    """What a run knows about the schedule that started it. Moments are aware, in UTC."""

    id: str
    scheduled_at: datetime
    """The time of the schedule that this run stands for; of a run that was triggered, the moment of that."""
    interval_start: datetime
    interval_end: datetime
    """The data interval, `interval_start <= moment < interval_end`: from the time before `scheduled_at` up to it. A run
    that was triggered has the last interval that was over then. Empty where there is no time before."""


class WorkflowContext:
    """Given to every workflow function as its first argument."""

    def __init__(
        self,
        facts: RunFacts,
        input_data: Any,
        *,
        journal: Journal,
        codec: Codec,
        clock: Callable[[], float],
        next_number: Callable[[], int],
        seed: str | None = None,
        schedule: ScheduleInfo | None = None,
    ) -> None:
        self.run_id = facts.run_id
        self.workflow_id = facts.workflow_id
        self.workflow_name = facts.name
        self.version = facts.version
        self.generation = facts.generation
        self.parent_run_id = facts.parent_run_id
        self.retry_count = facts.retry_count
        """How often this run was retried. It is the same for the whole of a retry, also before the point of failure."""
        self.input_data = input_data
        self.schedule = schedule
        """The schedule and the time that this run was started for. None: nothing scheduled it."""
        self.history_length = 0
        """How many events this generation's history holds."""
        self.logger = ReplayLogger(_log, {"run_id": facts.run_id, "workflow": facts.name})
        self._journal = journal
        self._codec = codec
        self._clock = clock
        self._next_number = next_number
        self._asking = Asking(journal, codec, run_id=facts.run_id, generation=facts.generation)
        self._approving = Approving(
            self._asking,
            run_id=facts.run_id,
            generation=facts.generation,
            workflow=facts.name,
            logger=self.logger,
        )
        self._handlers = Handlers(journal, codec)
        self._patches = Patches(journal)
        self._custom_status: str | None = None
        self._http_calls = 0
        self._seed = seed or f"{facts.run_id}/{facts.generation}"

    # --- facts --------------------------------------------------------------------------------

    def get_input(self, key: str, default: Any = None) -> Any:
        """One entry of the input: an item of a mapping, an attribute of anything else."""
        if isinstance(self.input_data, Mapping):
            return self.input_data.get(key, default)
        return getattr(self.input_data, key, default)

    def now(self) -> datetime:
        """The workflow's time: the moment of the last event, the same in every replay. Aware, UTC."""
        return moment(self._clock())

    def uuid4(self) -> UUID:
        """A random UUID that is the same in every replay."""
        self._journal.refuse_when_looking()
        return UUID(int=self._uuids.getrandbits(128), version=4)

    # Made when they are asked for: to seed one takes as long as a step.
    @functools.cached_property
    def _uuids(self) -> random.Random:
        return random.Random(f"{self._seed}/uuid")

    @functools.cached_property
    def _random(self) -> random.Random:
        return random.Random(self._seed)

    def random(self) -> random.Random:
        """This run's random numbers: seeded by its id, the same in every replay."""
        self._journal.refuse_when_looking()
        return self._random

    # --- activities ---------------------------------------------------------------------------

    @overload
    def execute_activity(
        self, fn: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> Step[R]: ...
    @overload
    def execute_activity(self, fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Step[R]: ...
    def execute_activity(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Step[Any]:
        """One durable step: the activity's result, stored before it is seen here, so that it is never run again.

        Raises what the activity raised once its retries are used up; asyncio.CancelledError when the step is cancelled,
        after what was running has ended.
        """
        return self._step(self._asking.activity(fn, args, kwargs))

    def execute_parallel(self, *calls: tuple[Any, ...]) -> Step[list[Any]]:
        """Several activities at once: `(fn, args, kwargs)` each (args and kwargs may be left out). Results in
        argument order.

        The first failure is raised after the others have been cancelled and have ended.
        """
        return self._step(self._asking.parallel([_call(one) for one in calls]))

    @overload
    def map(
        self,
        fn: Callable[[T], Coroutine[Any, Any, R]],
        items: Iterable[T],
        *,
        max_concurrency: int | None = None,
        min_successful: int | None = None,
        tolerated_failures: int | None = 0,
    ) -> Step[BatchResult[R]]: ...
    @overload
    def map(
        self,
        fn: Callable[[T], R],
        items: Iterable[T],
        *,
        max_concurrency: int | None = None,
        min_successful: int | None = None,
        tolerated_failures: int | None = 0,
    ) -> Step[BatchResult[R]]: ...
    def map(
        self,
        fn: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        max_concurrency: int | None = None,
        min_successful: int | None = None,
        tolerated_failures: int | None = 0,
    ) -> Step[BatchResult[Any]]:
        """`fn(item)` for every item: one step each, at most `max_concurrency` at a time.

        - Ends when all have ended; when `min_successful` have succeeded; or when more than `tolerated_failures` have
          failed (None: any number may). What is left then is cancelled, and has ended.
        - Failures are in the result, not raised: `raise_if_failed()` does that.
        - Raises ValueError for numbers that make no sense.
        """
        completion = Completion(
            max_concurrency=max_concurrency, min_successful=min_successful, tolerated_failures=tolerated_failures
        )
        given = list(items)
        definition = activity_definition(fn)
        group: list[int] = []

        def begin(index: int) -> Coroutine[Any, Any, Any]:
            command_id = self._journal.next_id()
            group.append(command_id)
            return self._asking.activity(definition, (given[index],), {}, command_id, group[0])

        return self._step(run_batch(begin, len(given), completion))

    def add_compensation(self, fn: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have the activity `fn` undo the activity or child that was the last to end: when the run fails, is cancelled
        or times out, all compensations run in reverse order. `@activity(compensate=undo)` does the same for each call
        of an activity."""
        self._journal.refuse_when_looking()
        self._asking.add_compensation(activity_definition(fn), args, kwargs, self._journal.last_done)

    def side_effect(self, fn: Callable[[], Any]) -> Step[Any]:
        """Call `fn` (sync or async, quick) once, and give what it gave, or raise what it raised, in every replay."""
        return self._step(self._asking.side_effect(fn))

    def call_http(
        self, method: str, url: str, *, timeout: Duration | None = None, **options: Unpack[CallOptions]
    ) -> Step[HttpResponse]:
        """An HTTP request as a durable step; see `outbound.call` for what it retries, and for its options.

        A 202 with a Location is polled, by durable timers, until it is something else. Raises TimeoutError when that
        takes longer than `timeout`, HttpStatusError for a 5xx or 429 that outlasts its retries, ConnectionError.
        """
        self._journal.refuse_when_looking()
        self._http_calls += 1  # now: by the time that the step begins others may have been asked for
        return self._step(self._within(timeout, self._call_http, self._http_calls, method, url, options))

    async def _call_http(self, number: int, method: str, url: str, options: CallOptions) -> HttpResponse:
        if "idempotency_key" not in options:
            # A retry may give this place to another request, or make one anew that was undone: another key.
            redone = self._journal.times_redone(self._journal.position + 1)
            again = f"/again-{redone}" if redone else ""
            options["idempotency_key"] = f"{self.run_id}/{self.generation}/http-{number}{again}"
        return await outbound.call(self.execute_activity, self.sleep, method, url, **options)

    # --- other runs ---------------------------------------------------------------------------

    def execute_child(
        self,
        workflow: str | WorkflowDefinition[Any],
        input_data: Any = None,
        *,
        run_id: str | None = None,
        on_parent_close: ParentClosePolicy = "cancel",
    ) -> Step[Any]:
        """Start another run and wait for its result; raises what its workflow raised.

        - The child is a run of its own, with its own history and retries. Its id is a function of its place here unless
          `run_id` says otherwise (RunExistsError when that is taken).
        - Cancelling the wait cancels the child and waits for its end, unless on_parent_close is "abandon".
        - A child that was cancelled or terminated by others raises ChildFailedError.
        """
        return self._step(self._child(workflow, input_data, run_id, on_parent_close))

    def start_child(
        self,
        workflow: str | WorkflowDefinition[Any],
        input_data: Any = None,
        *,
        run_id: str | None = None,
        on_parent_close: ParentClosePolicy = "cancel",
    ) -> Step[ChildHandle]:
        """Start another run and go on beside it: a handle with `.run_id`, `.result()`, `.signal()`, `.cancel()`.

        - Returns once the child exists. Raises RunExistsError, InvalidInputError, UnknownWorkflowError.
        - on_parent_close: what becomes of it when this run ends first: "cancel" asks it to end, "terminate" ends it by
          force, "abandon" leaves it alone.
        """
        return self._step(self._start_child(workflow, input_data, run_id, on_parent_close))

    def signal_run(self, run_id: str, name: str, payload: Any = None) -> Step[None]:
        """Send a signal to another run, exactly once. Raises RunNotFoundError and RunClosedError."""
        return self._step(self._asking.send(run_id, name, payload))

    async def _child(self, workflow: Any, input_data: Any, run_id: str | None, policy: str) -> Any:
        command = self._asking.child_command(workflow, input_data, run_id, policy, waits_for_start=False)
        return await self._asking.child(command)

    async def _start_child(self, workflow: Any, input_data: Any, run_id: str | None, policy: str) -> ChildHandle:
        command = self._asking.child_command(workflow, input_data, run_id, policy, waits_for_start=True)
        return await ChildHandle(self._asking, command, self._step).started()

    def continue_as_new(self, input_data: Any = None) -> NoReturn:
        """End this generation here and go on as the next: the same run_id, this input, an empty history.

        Signals that nobody has taken are kept; children are settled by their `on_parent_close`. Raises ContinueAsNew,
        a BaseException: call it in the workflow function itself, not in a task that it has started.
        """
        raise ContinueAsNew(input_data)

    @property
    def should_continue_as_new(self) -> bool:
        """Whether the history has become so long that it is time to."""
        return self.history_length >= CONTINUE_AS_NEW_EVENTS

    # --- timers -------------------------------------------------------------------------------

    def sleep(self, duration: Duration) -> Step[None]:
        """Wait durably; no process is needed meanwhile. `asyncio.sleep(seconds)` is the same."""
        return self._step(asyncio.sleep(seconds(duration)))

    def sleep_until(self, when: datetime) -> Step[None]:
        """Wait durably until `when` (aware). Returns at once when that has passed."""
        if when.tzinfo is None:
            raise ValueError("sleep_until takes an aware datetime, such as ctx.now() + timedelta(days=1)")
        return self._step(self._sleep_until(timestamp(when)))

    async def _sleep_until(self, when: float) -> None:
        loop: Any = asyncio.get_running_loop()  # the run's own
        wake = loop.create_future()
        handle = loop.wake_at(when, _wake, wake)
        try:
            await wake
        finally:
            handle.cancel()

    # --- signals, queries, updates -------------------------------------------------------------

    def wait_for_signal(self, name: str, timeout: Duration | None = None) -> Step[Any]:
        """The payload of the next signal of that name, first in first out; one that came early is kept.

        Raises TimeoutError when none has come within `timeout`.
        """
        return self._step(self._within(timeout, self._handlers.mailbox.wait, name))

    def on_signal(self, name: str, handler: Callable[[Any], Any]) -> None:
        """Call `handler(payload)` for every signal of that name, also for those that came before. An async handler runs
        as a task of its own; an exception in a handler fails the run."""
        self._journal.refuse_when_looking()
        self._handlers.on_signal(name, handler)

    def wait_until(self, predicate: Callable[[], Any], timeout: Duration | None = None) -> Step[None]:
        """Wait until `predicate()` is true; it is asked again after every event. TimeoutError after `timeout`."""
        return self._step(self._within(timeout, self._handlers.until, predicate))

    def on_query(self, name: str, fn: Callable[..., Any]) -> None:
        """Answer queries of that name with what `fn(*args)` returns: a plain function that only looks."""
        self._journal.refuse_when_looking()
        self._handlers.on_query(name, fn)

    def on_update(self, name: str, fn: Callable[[Any], Any], validator: Callable[[Any], Any] | None = None) -> None:
        """Carry out updates of that name with `fn(payload)`; whoever sent one gets its result, or what it raised.

        - `validator(payload)`, a plain function that only looks, raises for an update that must not be: that one leaves
          no trace.
        - An async `fn` runs as a task of its own and may run activities.
        """
        self._journal.refuse_when_looking()
        self._handlers.on_update(name, fn, validator)

    def set_status(self, value: Any) -> None:
        """What the run's `custom_status` shows from the next write of its record on: any storable value."""
        self._journal.refuse_when_looking()
        self._custom_status = None if value is None else self._codec.encode(value)

    # --- versions -----------------------------------------------------------------------------

    def patched(self, patch: str) -> bool:
        """Whether this run takes the new branch of a change to the code: True for runs that come here for the first
        time, False for those that were past this place before the change was deployed. Ask before both branches."""
        return self._patches.patched(patch)

    def deprecate_patch(self, patch: str) -> None:
        """Stands where `patched(patch)` stood once the old branch is removed: a run that took the old branch is parked
        here. Remove it when no such run is open any more."""
        self._patches.deprecate(patch)

    # --- approvals ----------------------------------------------------------------------------

    def wait_for_approval(
        self,
        key: str,
        timeout: Duration | None = None,
        *,
        title: str | None = None,
        details: Any = None,
        approvers: Sequence[str] | None = None,
        form: Any = None,
        quorum: int = 1,
        veto: bool = True,
        notify: Any = None,
        remind_every: Duration | None = None,
        max_reminders: int | None = None,
        escalate_after: Duration | None = None,
        escalate_to: Sequence[str] | None = None,
        must_notify: bool = False,
    ) -> Step[Approval]:
        """Ask people for a decision under `key`; the run is paused meanwhile and costs nothing.

        - title and details (any storable value) are shown to those who decide.
        - approvers: nobody else may decide. None: whoever reaches the question may.
        - form: a pydantic model class; the `data` of an approval has to fit its JSON schema.
        - quorum: so many different people have to approve. One rejection rejects; with veto=False only when too few of
          the approvers are left to make the quorum.
        - notify: an activity that takes an ApprovalRequest. It is called when the question is asked, every
          `remind_every` after that (at most `max_reminders` times), and once `escalate_after` has passed; from that
          moment those in `escalate_to` may decide as well. Its failure is logged; with must_notify it is raised.
        - Raises TimeoutError when nobody has decided within `timeout`; a later decision is then refused. ValueError for
          arguments that make no sense.
        """
        question = Question(
            key=key,
            timeout=timeout,
            title=title,
            details=details,
            approvers=approvers,
            form=form,
            quorum=quorum,
            veto=veto,
            notify=notify,
            remind_every=remind_every,
            max_reminders=max_reminders,
            escalate_after=escalate_after,
            escalate_to=escalate_to,
            must_notify=must_notify,
        )
        return self._step(self._approving.ask(question))

    # --- parts --------------------------------------------------------------------------------

    def _step(self, coro: Coroutine[Any, Any, R]) -> Step[R]:
        if self._journal.read_only:  # a number that is given here would not be given in a replay
            coro.close()
            self._journal.refuse_when_looking()
        return Step(coro, self._next_number(), self._journal)

    async def _within(self, timeout: Duration | None, wait: Callable[..., Coroutine[Any, Any, R]], *args: Any) -> R:
        if timeout is None:
            return await wait(*args)
        async with asyncio.timeout(seconds(timeout)):
            return await wait(*args)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _call(call: Any) -> ActivityCall:
    match call:
        case (fn, args, kwargs):
            return fn, tuple(args), dict(kwargs)
        case (fn, args):
            return fn, tuple(args), {}
        case (fn,):
            return fn, (), {}
        case _:
            raise TypeError(f"execute_parallel takes (activity, args, kwargs) tuples, not {call!r}")
