"""`tinyworkflow keys`: a key is made, printed once, and its record opens what it says."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tinyworkflow_core.cli import cli
from tinyworkflow_core.http.access import Access
from tinyworkflow_core.http.access_document import document_from_env
from tinyworkflow_core.testing import VirtualClock


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command puts the current folder there


def keys(*arguments: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, ["keys", *arguments], env=environ)


def test_a_new_key_is_printed_once_and_its_record_lets_it_in() -> None:
    options = ["--scope", "start", "--scope", "read", "--workflow", "orders*", "--expires", "2999-01-01"]
    made = json.loads(keys("new", "shop", *options, "--json").stdout)
    key, record = made["key"], made["record"]
    assert key not in json.dumps(record)
    assert record["expires"] == "2999-01-01T00:00:00+00:00"
    access = Access(document_from_env({"TINYWORKFLOW_ACCESS": json.dumps({"keys": [record]})}))
    caller: Any = access.by_key(key.encode(), VirtualClock().now())
    assert (caller.name, sorted(caller.scopes), caller.workflows) == ("shop", ["read", "start"], ("orders*",))

    plain = keys("new", "shop", "--scope", "all")
    another, shown = plain.stdout.splitlines()
    assert another != key
    assert len(another) == len("twk_") + 64
    assert json.loads(shown)["sha256"] == hashlib.sha256(another.encode()).hexdigest()
    assert another not in plain.stderr


@pytest.mark.parametrize(
    "arguments",
    [["shop", "--scope", "strat"], ["my shop", "--scope", "all"], ["shop", "--scope", "all", "--expires", "soon"],
     ["shop", "--scope", "platform", "--workflow", "a"], ["shop"]],
)  # fmt: skip
def test_a_key_that_could_not_be_used_is_not_made(arguments: list[str]) -> None:
    done = keys("new", *arguments)
    assert done.exit_code != 0
    assert "twk_" not in done.output


def test_the_document_is_checked_and_told_in_words() -> None:
    record = {"name": "shop", "sha256": "a" * 64, "scopes": ["start"], "workflows": ["orders*"]}
    told = keys("check", TINYWORKFLOW_ACCESS=json.dumps({"keys": [record]}))
    assert (told.exit_code, told.stdout) == (0, "shop: start; orders*\n")
    wrong = keys("check", TINYWORKFLOW_ACCESS=json.dumps({"keys": [record | {"scopes": ["x"]}]}))
    assert wrong.exit_code == 1
    assert "'shop'" in wrong.stderr
    assert keys("check", TINYWORKFLOW_ACCESS="").exit_code == 1
