"""What one Firestore store asks of Firestore: documents counted, and replies lost, below everything that the store
does."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

google_errors: Any = import_module("google.api_core.exceptions")  # untyped: a plain import would not pass mypy

Hook = Callable[[], Awaitable[object]]


@dataclass
class Wire:
    """The requests of one store: counts documents, and disturbs the next commit when told to."""

    api: Any
    written: int = 0
    written_to: Counter[str] = field(default_factory=Counter)
    """Writes of each document, by its id."""
    deleted: int = 0
    read: int = 0
    before_commit: list[Hook] = field(default_factory=list)
    """Done before a commit reaches Firestore, one for each."""
    after_lost_commit: list[Hook] = field(default_factory=list)
    """Done after a commit whose reply is then lost, one for each."""

    def __post_init__(self) -> None:
        self._commit, self.api.commit = self.api.commit, self._metered_commit
        self.api.batch_get_documents = self._metered(self.api.batch_get_documents, lambda one: True)
        self.api.run_query = self._metered(self.api.run_query, lambda one: "document" in one)

    def spent(self) -> tuple[int, int, int]:
        """Documents written, deleted and read since the last call."""
        spent = (self.written, self.deleted, self.read)
        self.written = self.deleted = self.read = 0
        return spent

    def lose_the_next_reply(self, meanwhile: Hook | None = None) -> None:
        self.after_lost_commit.append(meanwhile or _nothing)

    async def _metered_commit(self, *, request: dict[str, Any], **kwargs: Any) -> Any:
        if self.before_commit:
            await self.before_commit.pop()()
        answer = await self._commit(request=request, **kwargs)
        deletes = sum("delete" in write for write in request["writes"])
        self.deleted += deletes
        self.written += len(request["writes"]) - deletes
        self.written_to.update(write.update.name.rsplit("/", 1)[1] for write in request["writes"] if "update" in write)
        if self.after_lost_commit:
            await self.after_lost_commit.pop()()
            raise google_errors.ServiceUnavailable("the reply was lost")
        return answer

    def _metered(self, call: Any, counts: Callable[[Any], bool]) -> Any:
        async def metered(**kwargs: Any) -> AsyncIterator[Any]:
            answers = [one async for one in await call(**kwargs)]
            self.read += max(1, sum(counts(one) for one in answers))  # a query that finds nothing costs one read

            async def again() -> AsyncIterator[Any]:
                for one in answers:
                    yield one

            return again()

        return metered


async def _nothing() -> None:
    pass
