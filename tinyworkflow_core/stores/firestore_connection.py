"""Talking to Firestore: clients, timeouts, errors. Nothing here knows what a run is.

google.cloud.firestore is imported by the first call, never by importing this module: the module is loaded before the
web server forks, and the import takes 0.4 s. A client belongs to the event loop that first used it, so there is one
per loop.

Every call tries again for a few seconds while Firestore is out of reach, then raises StoreUnavailableError. A write
whose reply was lost is sent again too, and then meets itself: it raises Conflict, and the caller has to read back what
is stored to tell itself from somebody else.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

from ..clock import fresh_id
from ..errors import ConfigurationError, PayloadTooLargeError, SerializationError, StoreError, StoreUnavailableError
from ..records import dataclass
from .firestore_documents import MAX_COMMIT_BYTES, MAX_DOCUMENT_BYTES, size_of

RETRY_SECONDS = 4.0
"""How long a call tries again. The library's own defaults, 60 to 300 s, are longer than a request lives."""

CALL_SECONDS = 5.0
"""The longest that one try of a write or a point read may take."""

QUERY_SECONDS = 20.0
"""The same for a query: a long history comes in over many messages."""

T = TypeVar("T")


class Conflict(Exception):
    """A precondition of a batch does not hold: nothing of it was written now, but an earlier try may have been."""


@dataclass(frozen=True, slots=True)
class Create:
    """Write a document that must not exist yet."""

    reference: Any
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """Change some fields of a document that must not have changed since `version` (its update_time)."""

    reference: Any
    data: dict[str, Any]
    version: Any


@dataclass(frozen=True, slots=True)
class Replace:
    """Write a document whatever was there."""

    reference: Any
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a document; one that is not there is no error. With a `version` (an update_time) it has to be there, and
    must not have changed since."""

    reference: Any
    version: Any = None


Write = Create | Update | Replace | Delete


@dataclass(frozen=True, slots=True)
class _Google:
    """The parts of the client library in use."""

    firestore: ModuleType
    errors: ModuleType
    auth_errors: ModuleType
    grpc: ModuleType
    retry: Any


@functools.cache
def google() -> _Google:
    """The client library. Raises ConfigurationError when it is not installed."""
    try:
        return _Google(
            firestore=importlib.import_module("google.cloud.firestore"),
            errors=importlib.import_module("google.api_core.exceptions"),
            auth_errors=importlib.import_module("google.auth.exceptions"),
            grpc=importlib.import_module("grpc"),
            retry=importlib.import_module("google.api_core.retry_async").AsyncRetry(
                predicate=_is_transient, initial=0.05, maximum=1.0, multiplier=2.0, timeout=RETRY_SECONDS
            ),
        )
    except ImportError as error:
        raise ConfigurationError(
            "a firestore:// store needs google-cloud-firestore: pip install google-cloud-firestore"
        ) from error


class Connection:
    """Clients of one database, one for each event loop that uses it."""

    def __init__(self, project: str, database: str) -> None:
        self._project = project
        self._database = database
        self._clients: dict[asyncio.AbstractEventLoop, Any] = {}

    def client(self) -> Any:
        """The client of the running event loop; made by the first call in it."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            for old in [one for one in self._clients if one.is_closed()]:
                self._clients.pop(old, None)
            with translated():
                self._clients[loop] = google().firestore.AsyncClient(project=self._project, database=self._database)
        return self._clients[loop]

    async def get(self, references: Sequence[Any], fields: Sequence[str] | None = None) -> list[Any]:
        """The snapshots of these documents, in the same order, in one request. `fields` narrows what is sent."""
        client = self.client()

        async def call() -> dict[str, Any]:
            answers = client.get_all(list(references), field_paths=fields, retry=None, timeout=CALL_SECONDS)
            return {snapshot.reference.path: snapshot async for snapshot in answers}

        found = await _call(call) if references else {}
        return [found[reference.path] for reference in references]

    async def query(self, query: Any) -> list[Any]:
        """All snapshots that the query finds."""

        async def call() -> list[Any]:
            return list(await query.get(retry=None, timeout=QUERY_SECONDS))

        return await _call(call)

    async def commit(self, writes: Sequence[Write]) -> list[Any]:
        """Write all or nothing. Returns the new version of each document.

        Raises Conflict, and PayloadTooLargeError before anything is sent.
        """
        client = self.client()
        _check_size(writes)
        batch = client.batch()
        try:
            for write in writes:
                match write:
                    case Create(reference, data):
                        batch.create(reference, data)
                    case Update(reference, data, version):
                        batch.update(reference, data, client.write_option(last_update_time=version))
                    case Replace(reference, data):
                        batch.set(reference, data)
                    case Delete(reference, version):
                        batch.delete(reference, version and client.write_option(last_update_time=version))
        except ValueError as error:  # lone surrogates, integers over 64 bits
            raise SerializationError(f"Firestore cannot hold a value of this run: {error}") from error
        errors = google().errors

        async def call() -> list[Any]:
            try:
                results = await batch.commit(retry=None, timeout=CALL_SECONDS)
            except (errors.AlreadyExists, errors.FailedPrecondition, errors.NotFound) as error:
                raise Conflict(str(error)) from error
            return [result.update_time for result in results]

        return await _call(call)

    async def close(self) -> None:
        """Close the running loop's client. Those of other loops cannot be closed from here."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        self._clients.clear()
        if client is not None and client._firestore_api_internal is not None:  # the client has no public close
            await client._firestore_api_internal.transport.close()


async def pause(attempt: int) -> None:
    """Wait before trying again after a conflict: longer each time, never in step with the others."""
    jitter = 0.5 + int(fresh_id(4), 16) / 0xFFFF
    await asyncio.sleep(min(0.5, 0.01 * 2**attempt) * jitter)


def size_of_batch(writes: Sequence[Write]) -> int:
    """Bytes of a request, as `commit` counts them."""
    return sum(_sizes(writes))


def _sizes(writes: Sequence[Write]) -> list[int]:
    return [0 if isinstance(write, Delete) else size_of(write.data) for write in writes]


def _check_size(writes: Sequence[Write]) -> None:
    sizes = _sizes(writes)
    if max(sizes, default=0) > MAX_DOCUMENT_BYTES:
        raise PayloadTooLargeError(
            f"a document of {max(sizes)} bytes is over Firestore's limit of 1 MiB; "
            "store large values elsewhere and pass a reference"
        )
    if sum(sizes) > MAX_COMMIT_BYTES:
        raise PayloadTooLargeError(f"one commit of {sum(sizes)} bytes is over the limit of {MAX_COMMIT_BYTES}")


# --- errors: the only place that knows the driver's ----------------------------------------------------


async def _call(call: Callable[[], Awaitable[T]]) -> T:
    with translated():
        result: T = await google().retry(call)()
        return result


def _is_transient(error: BaseException) -> bool:
    errors = google().errors
    if isinstance(error, errors.MethodNotImplemented):
        return False
    return isinstance(error, errors.ServerError | errors.Aborted | errors.TooManyRequests)


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the client library, and of what it stands on, as ours. Conflict passes."""
    library = google()
    errors, auth_errors = library.errors, library.auth_errors
    try:
        yield
    except errors.RetryError as error:
        raise StoreUnavailableError(f"Firestore cannot be reached: {error.cause}") from error
    except (auth_errors.TransportError, auth_errors.RefreshError) as error:
        raise StoreUnavailableError(f"no credentials for Firestore just now: {error}") from error
    except (errors.GoogleAPIError, auth_errors.GoogleAuthError, library.grpc.RpcError) as error:
        if _is_transient(error):
            raise StoreUnavailableError(f"Firestore cannot be reached: {error}") from error
        raise StoreError(f"Firestore refused: {error}") from error
