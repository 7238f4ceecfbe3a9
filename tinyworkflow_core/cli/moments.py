"""Moments on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import typer


def moment(argument: str, text: str) -> datetime:
    """A moment in ISO format; UTC unless it says otherwise. Raises BadParameter, which names the argument."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{argument}: {error}") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
