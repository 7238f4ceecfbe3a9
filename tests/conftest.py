"""Fixtures that every folder may use."""

from __future__ import annotations

from tests.services import chromium, firestore_emulator

__all__ = ["chromium", "firestore_emulator"]
