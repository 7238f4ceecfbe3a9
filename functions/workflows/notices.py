"""Telling people something: the one activity that the examples share. It only logs; send mail here instead."""

from __future__ import annotations

import logging

from tinyworkflow_core import activity, activity_context

_log = logging.getLogger("workflows.notices")


@activity
async def notify(to: str, text: str) -> str:
    """Tell somebody something. Returns the key by which a mail service would recognise a repeated request."""
    key = activity_context().idempotency_key
    _log.info("to %s (%s): %s", to, key, text)
    return key
