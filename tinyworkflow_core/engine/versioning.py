"""Versioning: changed code under runs that are open.

A patch is a name for one change. A run that meets it for the first time takes the new branch and marks that in its
history; a run that was past this place before the change was deployed has no mark, and takes the old branch for ever.
"""

from __future__ import annotations

from .journal import Journal, user_line


class Patches:
    """The patches that one execution has been asked about."""

    def __init__(self, journal: Journal) -> None:
        self.is_replaying = True
        """Whether the stored history goes on after this moment, and may have been made by code without the patch."""
        self._journal = journal
        self._old: set[str] = set()

    def patched(self, patch: str) -> bool:
        """Whether this run takes the branch that came with the patch; the same answer for as long as it lives."""
        journal = self._journal
        if patch in journal.patches:
            return True
        if patch in self._old or journal.read_only:
            return False
        if self.is_replaying or journal.is_behind:  # the old code was here, and went on
            self._old.add(patch)
            return False
        journal.patches.add(patch)
        journal.unrecorded_patches.append(patch)
        return True

    def deprecate(self, patch: str) -> None:
        """The old branch is gone from the code: a run that needs it must not go on. One that does not is marked, so
        that its replay can tell."""
        if not self.patched(patch) and not self._journal.read_only:
            self._journal.deny_patch(patch, user_line())
