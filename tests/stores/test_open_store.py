"""Database URLs: which store each of them names, and what is said about the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tinyworkflow_core.errors import ConfigurationError
from tinyworkflow_core.stores import open_store
from tinyworkflow_core.stores.sqlite import SqliteStore


@pytest.mark.parametrize("scheme", ["sqlite", "sqlite+aiosqlite"])
def test_sqlite_urls_name_files_relative_absolute_and_in_memory(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    paths = [open_store(f"{scheme}:///{rest}") for rest in ("runs.db", "/srv/runs.db", ":memory:")]

    assert all(isinstance(store, SqliteStore) for store in paths)
    assert [getattr(store, "path", None) for store in paths] == [str(tmp_path / "runs.db"), "/srv/runs.db", ":memory:"]


@pytest.mark.parametrize(
    "url",
    [
        "", "runs.db", "mysql://host/db", "redis://user:hunter2@host", "sqlite://", "sqlite:///", "sqlite://runs.db",
        "sqlite:///runs.db?mode=ro", "firestore://", "firestore:///db", "firestore://p/d/x", "firestore://p?colection=x",
        "firestore://p?collection=", "firestore://p?collection=a/b",
    ],
)  # fmt: skip
def test_other_urls_are_refused_with_what_is_supported(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"sqlite:///file\.db.*firestore://project/database") as caught:
        open_store(url)

    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("firestore://p", ("p", "(default)", "tinyworkflow")),
        ("firestore://p/(default)", ("p", "(default)", "tinyworkflow")),
        ("firestore://p/db?collection=prefix", ("p", "db", "prefix")),
    ],
)
def test_firestore_urls_name_project_database_and_collection(
    url: str, expected: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyworkflow_core.stores import firestore

    asked: list[tuple[str, str, str]] = []

    class Recorder:
        def __init__(self, project: str, database: str, collection: str) -> None:
            asked.append((project, database, collection))

    monkeypatch.setattr(firestore, "FirestoreStore", Recorder)
    open_store(url)

    assert asked == [expected]


def test_a_store_is_imported_when_its_url_is_opened_and_not_before() -> None:
    code = (
        "import sys; from tinyworkflow_core.stores import open_store; "
        "assert not {'sqlite3', 'google.cloud.firestore'} & set(sys.modules); "
        "open_store('sqlite:///:memory:'); assert 'sqlite3' in sys.modules; "
        "assert 'google.cloud.firestore' not in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
