"""docs/costs.md says what is counted (`tests/scenarios/test_cost.py`) and what follows from it by list prices."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import costs
from tests.scenarios.costing import ROWS

PAGE = (Path(__file__).parents[1] / "docs" / "costs.md").read_text()
PARTS = (costs.documents_table, costs.prices_table, costs.arithmetic, costs.million_table, costs.peers_table)


@pytest.mark.parametrize("part", PARTS)
def test_the_page_of_costs_shows_what_is_counted_and_what_follows_from_it(part: Callable[[], str]) -> None:
    assert part() in PAGE, "paste it: python -m tests.benchmarks.firestore_cost --page"


def test_the_arithmetic_on_the_page_of_costs_adds_up_to_its_table() -> None:
    lines = costs.arithmetic().splitlines()[1:]
    parts = [float(line.rsplit("= ", 1)[1]) for line in lines[:-1]]
    whole = float(lines[-1].removeprefix("all "))
    assert sum(parts) == pytest.approx(whole, abs=0.02)
    [row] = re.findall(r"^\| a sequence of 10 steps \|.* ([\d.]+) \|$", costs.million_table(), re.MULTILINE)
    assert float(row) == whole
    for line in lines[:-1]:
        [(amount, dollars, per, product)] = re.findall(r"= +([\d,]+) x ([\d.]+)(?: / ([\d,]+))? += ([\d.]+)$", line)
        each = float(dollars) / float(per.replace(",", "") or 1)
        assert float(amount.replace(",", "")) * each == pytest.approx(float(product), abs=0.006)


def test_a_sequence_costs_one_document_a_step_and_three_a_run() -> None:
    sequences = {row.steps: row.spent for name, row in ROWS.items() if name.startswith("a sequence")}
    assert sorted(sequences) == [1, 10, 100]
    for steps, spent in sequences.items():
        assert (spent.written, spent.deleted, spent.read, spent.calls) == (steps + 3, 0, 3, 1)
