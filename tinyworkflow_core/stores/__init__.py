"""The stores that there are, by URL. An adapter is imported when its URL is opened, never before."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qsl

from ..errors import ConfigurationError
from ..store import Store

__all__ = ["open_store"]

SUPPORTED = (
    "sqlite:///file.db (sqlite:////absolute/file.db, sqlite:///:memory:) "
    "and firestore://project/database?collection=prefix"
)


def open_store(url: str) -> Store:
    """The store that a database URL names; it connects on first use.

    - `sqlite:///file.db` is relative to the working directory, `sqlite:////srv/file.db` is not, `sqlite:///:memory:`
      lives as long as the store; `sqlite+aiosqlite:` means the same.
    - `firestore://project/database?collection=prefix`: without a database "(default)", without a collection
      "tinyworkflow".

    Raises ConfigurationError for every other URL, and when the driver that a store needs is not installed.
    """
    scheme, separator, rest = url.partition("://")
    opener = _OPENERS.get(scheme) if separator else None
    if opener is None:
        # Not the whole URL: one that is meant for another database may carry a password.
        shown = f"{scheme}://" if separator else "text without a scheme"
        raise ConfigurationError(f"the database URL begins with {shown!r}, which is not supported; use {SUPPORTED}")
    return opener(rest)


def _sqlite(rest: str) -> Store:
    path = rest.removeprefix("/")
    if path == rest or not path or "?" in path:
        raise ConfigurationError(f"a SQLite URL is 'sqlite:///' and a path, without options; supported: {SUPPORTED}")
    from .sqlite import SqliteStore

    return SqliteStore(path)


def _firestore(rest: str) -> Store:
    place, _, query = rest.partition("?")
    project, _, database = place.partition("/")
    options = dict(parse_qsl(query, keep_blank_values=True))
    collection = options.pop("collection", "tinyworkflow")
    if not project or not collection or "/" in database or "/" in collection or options:
        raise ConfigurationError(f"the Firestore URL is malformed; supported: {SUPPORTED}")
    try:
        from .firestore import FirestoreStore
    except ImportError as error:
        raise ConfigurationError(
            f"the Firestore store needs the package google-cloud-firestore, which is not installed: {error}"
        ) from error
    return FirestoreStore(project, database=database or "(default)", collection=collection)


_OPENERS: dict[str, Callable[[str], Store]] = {
    "sqlite": _sqlite,
    "sqlite+aiosqlite": _sqlite,
    "firestore": _firestore,
}
