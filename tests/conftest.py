"""Fixtures that every folder may use."""

from __future__ import annotations

from tests.services import firestore_emulator

__all__ = ["firestore_emulator"]
