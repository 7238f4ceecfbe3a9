"""Commands on API keys: `tinyworkflow keys ...`. They touch no database: what they print is for TINYWORKFLOW_ACCESS."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from ..clock import fresh_id
from .console import JsonFlag, cli, saying_what_failed
from .printing import show_json

keys = typer.Typer(help="Make API keys, and check TINYWORKFLOW_ACCESS.", no_args_is_help=True)
cli.add_typer(keys, name="keys")

_KEY_DIGITS = 64
"""256 random bits: as many as the hash has, so that nobody finds a key by trying."""


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Whose key it is, for logs and rate limits.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="start, signal, read, approve, operate, platform, reveal or all; may be given several times."
        ),
    ],
    workflow: Annotated[list[str] | None, typer.Option(help="A workflow's name, with * for any characters.")] = None,
    expires: Annotated[str | None, typer.Option(help="A moment in ISO format; UTC unless it says otherwise.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key and print it, this once, with its record for `keys` in TINYWORKFLOW_ACCESS. Only its hash is in it."""
    key = f"twk_{fresh_id(_KEY_DIGITS)}"
    record: dict[str, Any] = {"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": scope}
    if workflow:
        record["workflows"] = workflow
    if expires is not None:
        record["expires"] = _moment(expires)
    _check({"keys": [record]})
    if as_json:
        show_json({"key": key, "record": record})
        return
    typer.echo(key)
    typer.echo("This key is not shown again. Its record for TINYWORKFLOW_ACCESS:", err=True)
    typer.echo(json.dumps(record))


@keys.command()
def check(as_json: JsonFlag = False) -> None:
    """Say who may do what by TINYWORKFLOW_ACCESS; exits non-zero when it does not fit."""
    from ..http.access import VARIABLE
    from ..http.access_document import document_from_env

    with saying_what_failed():
        document = document_from_env(os.environ)
    if document is None:
        typer.echo(f"tinyworkflow: {VARIABLE} is not set", err=True)
        raise typer.Exit(1)
    found: list[dict[str, Any]] = [
        {
            "name": one.name,
            "scopes": sorted(one.scopes),
            "workflows": one.workflows,
            "expires": None if one.expires is None else one.expires.isoformat(),
        }
        for one in (*document.keys, *document.identities)
    ]
    if as_json:
        show_json(found)
        return
    for one in found:
        typer.echo(
            f"{one['name']}: {', '.join(one['scopes'])}; {', '.join(one['workflows'] or ['all workflows'])}"
            + (f"; until {one['expires']}" if one["expires"] else "")
        )


def _check(document: dict[str, Any]) -> None:
    from ..http.access import VARIABLE
    from ..http.access_document import document_from_env  # with pydantic: only where it is asked for

    with saying_what_failed():
        document_from_env({VARIABLE: json.dumps(document)})


def _moment(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"--expires: {text!r} is no moment in ISO format, such as 2027-01-31T00:00Z") from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).isoformat()
