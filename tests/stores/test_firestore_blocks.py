"""Which commits a history document holds besides its own, and how a history is read back from few of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tinyworkflow_core.stores import firestore_blocks as blocks
from tinyworkflow_core.stores.firestore_blocks import Block, Tail, alone, joined, reach, tail_of, way

STEP = 300
"""Characters of a step's events, or so."""


def events(sequence: int, size: int) -> str:
    """The events of a commit: none at all, or two that tell it from every other."""
    return json.dumps([sequence, "ü" + "x" * size]) if size else "[]"


class Documents:
    """The history documents of one generation, and what its holder knows of the end."""

    def __init__(self) -> None:
        self.written: dict[int, Block] = {}
        self.own: list[str] = []
        self.tail = Tail(last=0)
        self.last_read = 0
        """Documents that the last reading took."""
        self.rounds = 0

    def commit(self, size: int = STEP) -> None:
        sequence = len(self.own) + 1
        text = events(sequence, size)
        block = self.tail.next(sequence, text)
        self.tail = self.tail.followed_by(block)
        self._write(block, text)

    def commit_elsewhere(self, size: int = STEP) -> None:
        """By somebody who knows nothing of the end: a take-over, an older release, another process."""
        text = events(len(self.own) + 1, size)
        self._write(alone(len(self.own) + 1, text), text)

    def forget(self) -> None:
        self.tail = Tail(last=len(self.own))

    def _write(self, block: Block, text: str) -> None:
        assert block.last not in self.written
        assert reach(block.last) <= block.first <= block.last
        assert block.own == text
        assert len(block.events.encode()) <= blocks.MAX_BYTES or block.copied is None
        assert sum(part.size for part in self.tail.parts) <= blocks.MAX_BYTES
        self.written[block.last] = block
        self.own.append(text)

    def read(self, last: int | None = None) -> list[Block]:
        """The documents on the way from the last commit (or another), fetched by their numbers as a load does."""
        last = len(self.own) if last is None else last
        found: dict[int, Block] = {}
        self.rounds = 0
        while wanted := way(last, found)[1]:
            self.rounds += 1
            found |= {number: self.written[number] for number in wanted}
        the_way = way(last, found)[0]
        assert {block.last for block in the_way} == set(found), "a document was read that is not needed"
        self.last_read = len(found)
        return the_way

    def load(self) -> None:
        """By the holder of the next lease."""
        self.tail = tail_of(len(self.own), self.read())


def told(the_way: Iterable[Block]) -> list[object]:
    return [one for block in reversed(list(the_way)) for one in json.loads(block.events)]


SIZES = st.sampled_from([0, 1, 20, 90, 200])
STEPS = st.one_of(
    st.tuples(st.just("commit"), SIZES),
    st.tuples(st.just("commits"), st.integers(2, 40)),
    st.tuples(st.sampled_from(["elsewhere", "forget", "load"]), SIZES),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=25), st.sampled_from([(8, 10_000), (8, 150), (64, 600), (256, 200_000)]))
def test_whoever_writes_and_whatever_is_forgotten_the_history_read_back_is_every_commit_once_and_in_order(
    steps: list[tuple[str, int]], limits: tuple[int, int]
) -> None:
    with patch.multiple(blocks, MAX_COMMITS=limits[0], MAX_BYTES=limits[1]):
        documents = Documents()
        for what, size in steps:
            match what:
                case "commit":
                    documents.commit(size)
                case "commits":
                    for number in range(size):
                        documents.commit(number % 3)
                case "elsewhere":
                    documents.commit_elsewhere(size)
                case "forget":
                    documents.forget()
                case "load":
                    documents.load()
            for last in {len(documents.own), len(documents.own) // 2}:
                expected = [one for text in documents.own[:last] for one in json.loads(text)]
                assert told(documents.read(last)) == expected
                assert documents.rounds <= 1 + limits[0].bit_length()


def test_a_history_of_equal_steps_is_read_in_at_most_twenty_documents_whatever_its_length_up_to_2000() -> None:
    documents = Documents()
    reads, size = [], 0
    for _ in range(2000):
        documents.commit()
        documents.read()
        assert documents.rounds == 1
        reads.append(documents.last_read)
        size += len(documents.written[len(documents.own)].events)

    assert reads[999] <= 12
    assert max(reads) <= 20
    assert size / sum(map(len, documents.own)) < 1 + 8 / 2 + 0.1  # what the copies cost, in bytes


def test_a_run_of_one_step_a_call_is_read_in_as_few_documents_as_one_that_stays_in_one_call() -> None:
    one_call, many_calls = Documents(), Documents()
    for number in range(300):
        one_call.commit()
        many_calls.load()
        many_calls.commit()
        if number % 50 == 0:
            one_call.load()

    assert many_calls.written == one_call.written


def test_a_document_that_could_take_up_nothing_costs_a_few_reads_until_the_border_and_none_after_it() -> None:
    documents = Documents()
    for number in range(1, 1001):
        if number in (128, 500, 700):  # the worst places: 500 and 700 are in the middle, 128 covers half of its border
            documents.commit_elsewhere()
            documents.load()
        else:
            documents.commit()

    documents.read()
    assert documents.last_read <= 12


def test_large_commits_are_copied_as_far_as_the_size_allows() -> None:
    documents = Documents()
    for _ in range(512):
        documents.commit(5_000)

    documents.read()
    assert {block.last - block.first + 1 for block in documents.read()} == {32}  # 64 would be over 200,000 bytes
    documents.commit(blocks.MAX_BYTES)
    documents.commit()
    documents.commit()
    assert [documents.written[number].first for number in (513, 514, 515)] == [513, 514, 515]
    assert documents.written[516 - 4].first == 481


def test_arrays_are_joined_as_they_are() -> None:
    assert joined([]) == joined(["[]", "[]"]) == "[]"
    assert json.loads(joined(['[{"a":"]["}]', "[]", '["ü",2]'])) == [{"a": "]["}, "ü", 2]
