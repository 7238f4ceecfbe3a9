"""Blocks of history: how a history document comes to hold a stretch of commits. Pure: texts and numbers in and out.

One commit is one document, so whoever resumes a run of 1,000 steps would read 1,000 documents. Therefore a document
holds, beside its own events, a copy of those of the commits just before it: document s covers the commits from
`reach(s)` to s. That is a binary indexed tree over the sequence numbers:

    1   2   3   4   5   6   7   8        sequence number = commit = document
    [1] ---[2]  [3] ------------[4] ...  2 covers 1-2, 4 covers 1-4, 6 covers 5-6, 8 covers 1-8, each odd one itself

So the documents on the `way` from the last commit back to the first are as many as its number has binary digits 1, and
`way` can name them before one of them was read. Nothing is written besides the document of the commit: the copies cost
bytes, on average 1 + log2(MAX_COMMITS) / 2 = 5 times those of the events, and no document write.

A document never covers more than that, but it may cover less: where the process does not know what was before (it has
not loaded the run), where MAX_BYTES would be passed, where an older release wrote it. Then the way is longer, and
nothing else: each document says by `first` where it begins, and the next one on the way ends just before.

Copies do not weaken the fence: a document is created, never changed, and what it copies are documents of the same
generation that were there before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..records import dataclass

MAX_COMMITS = 256
"""Commits that a document covers at most: a run of n commits is read in n / 256 + 8 documents or fewer. A power of
two."""

MAX_BYTES = 200_000
"""JSON that a document with copies holds at most: a fifth of what Firestore takes, so that no write becomes slow; 256
commits of ordinary steps are about 80,000. A commit that is larger by itself covers itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """The commits that one document holds, as JSON arrays of events."""

    first: int
    last: int
    """The document's sequence number: its own commit."""
    copied: str | None = None
    """The events of the commits from `first` to `last - 1`, in one array."""
    own: str

    @property
    def events(self) -> str:
        """All of them, in order."""
        return self.own if self.copied is None else joined((self.copied, self.own))


def alone(sequence: int, events: str) -> Block:
    """A document that holds its own commit and nothing else, as older releases write them all."""
    return Block(first=sequence, last=sequence, own=events)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A block at the end of a history, as later documents may copy it."""

    first: int
    events: str
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Tail:
    """The end of a history, so far as it is known and the next documents may copy it: at most MAX_BYTES of JSON."""

    last: int
    """The last commit; it is known even where no part is."""
    parts: tuple[_Part, ...] = ()
    """What ends with that commit, oldest first, without a gap."""

    def next(self, sequence: int, events: str) -> Block:
        """What the document of the commit `sequence`, which has these events, is to hold."""
        taken: list[_Part] = []
        size, first = _size(events), sequence
        for part in reversed(self.parts if sequence == self.last + 1 else ()):
            size += part.size
            if part.first < reach(sequence) or size > MAX_BYTES:
                break
            taken.append(part)
            first = part.first
        copied = joined(part.events for part in reversed(taken)) if taken else None
        return Block(first=first, last=sequence, copied=copied, own=events)

    def followed_by(self, block: Block) -> Tail:
        """The tail after the document with this block was written."""
        known = [part for part in self.parts if part.first < block.first] if block.last == self.last + 1 else []
        return Tail(last=block.last, parts=_kept([*known, _part(block)]))


def tail_of(last: int, blocks: Iterable[Block]) -> Tail:
    """The tail of a history that was read: its last commit, and the blocks on its way, the last one first."""
    return Tail(last=last, parts=_kept([_part(block) for block in reversed(list(blocks))]))


def reach(sequence: int) -> int:
    """The first commit that document `sequence` may cover."""
    return sequence - min(sequence & -sequence, MAX_COMMITS) + 1


def way(last: int, found: Mapping[int, Block]) -> tuple[list[Block], list[int]]:
    """The documents that together hold the commits from 1 to `last`, the last one first: those that were found, and
    the numbers of those to read next. When there are none of the latter, the way is complete.

    No document is named that is not needed. Each reading halves what is missing between two that were found, so after
    1 + log2(MAX_COMMITS) of them the way is complete, however little each covers.
    """
    blocks: list[Block] = []
    wanted: list[int] = []
    while last > 0:
        if (block := found.get(last)) is not None:
            blocks.append(block)
            last = block.first - 1
        else:
            wanted.append(last)
            last = reach(last) - 1
    return blocks, wanted


def joined(arrays: Iterable[str]) -> str:
    """JSON arrays as one."""
    inner = (array[1:-1] for array in arrays)
    return f"[{','.join(one for one in inner if one)}]"


def _part(block: Block) -> _Part:
    events = block.events
    return _Part(first=block.first, events=events, size=_size(events))


def _kept(parts: Sequence[_Part]) -> tuple[_Part, ...]:
    """Those that a later document may still copy: it takes the latest first."""
    size, kept = 0, len(parts)
    for part in reversed(parts):
        size += part.size
        if size > MAX_BYTES:
            break
        kept -= 1
    return tuple(parts[kept:])


def _size(text: str) -> int:
    return len(text.encode())
