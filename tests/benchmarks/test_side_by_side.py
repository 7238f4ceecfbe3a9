"""The side-by-side benchmark keeps working: driver, our adapter, report. Small sizes; nothing here looks at a time."""

from __future__ import annotations

import ast
import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.side_by_side import adapter as driver
from tests.benchmarks.side_by_side import environments, floor, restarts, session, targets
from tests.benchmarks.side_by_side.__main__ import HERE, adapter_of, parsed
from tests.benchmarks.side_by_side.report import BEGIN, END, Figures, table, write

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests/benchmarks/side_by_side"


def ours(workload: str) -> tuple[driver.Adapter, Namespace]:
    """Our adapter, which has forgotten earlier runs and pauses for nobody, and its options."""
    driver.forget_stamps()
    options = parsed(["ours", workload, "--repeat", "2", "--nap", "0.05"])
    made = adapter_of(options)
    made.w4_pause = (0.0, 0.0)
    return made, options


# --- the driver with our adapter ---------------------------------------------------------------------


@pytest.mark.parametrize("workload", HERE)
async def test_our_engine_passes_every_workload_that_needs_one_process(workload: str, tmp_path: Path) -> None:
    made, options = ours(workload)
    await made.open(str(tmp_path), made.start_server(str(tmp_path)))
    try:
        figure = await HERE[workload](made, 4, options)
    finally:
        await made.close()
    assert figure["per_second"] > 0
    assert not figure["extra"].get("failed_runs")
    assert made.extra() == {"journal": "WAL"}


async def test_a_later_process_goes_on_after_the_steps_of_an_earlier_one(tmp_path: Path) -> None:
    made, _ = ours("W5")
    assert "close_error" not in await restarts.w5_fill(made, 4, str(tmp_path), None, settle=0)
    made, _ = ours("W5")
    reported = await restarts.w5_resume(made, 4, str(tmp_path), None)
    assert reported["replay_s"] is not None, (
        "the workflow must have been replayed, from its first line to the last step"
    )


def test_a_killed_process_repeats_one_step_and_the_driver_counts_it(tmp_path: Path) -> None:
    """The one test with real processes: two workers, and the driver's own."""
    (tmp_path / "executions").write_text("0\n")  # as if a step had been repeated before
    [line] = environments.driven("ours", ["W7", "--n", "4"], str(tmp_path), seconds=60)
    assert driver.executions(str(tmp_path / "executions")) == ["0", "0", "1", "2", "2", "3"], line
    assert line["extra"]["repeated"] == 2
    assert line["seconds"] > 0


def test_a_driver_that_prints_nothing_is_a_failed_figure_and_not_the_end(tmp_path: Path) -> None:
    [line] = environments.driven("no such peer", ["W1"], str(tmp_path))
    assert "no such peer" in line["extra"]["error"]


def test_importing_is_measured_in_a_fresh_process() -> None:
    made, options = ours("W6")
    made.imports, made.names = "import json", "import asyncio"
    extra = restarts.w6(made, 1, options)["extra"]
    assert extra["modules"] > 0
    assert extra["names_rss_mb"] > extra["rss_mb"] > extra["bare_rss_mb"] > 0


def test_the_floor_commits_in_each_setting(tmp_path: Path) -> None:
    lines = list(floor.figures(str(tmp_path), 5))
    assert [line["variant"] for line in lines] == ["WAL-FULL", "WAL-NORMAL", "DELETE-FULL", "append-fsync"]
    assert all(line["per_second"] > 0 for line in lines)


def test_what_is_imported_for_a_peer_needs_the_standard_library_alone() -> None:
    shared = [FOLDER / f"{name}.py" for name in ("__main__", "adapter", "workloads", "restarts", "machine", "floor")]
    peers = {peer: FOLDER / "peers" / f"{peer}.py" for peer in environments.PEERS}
    assert sorted(peers.values()) == sorted((FOLDER / "peers").glob("*.py"))
    for module in shared:
        for node in ast.walk(ast.parse(module.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names, (module.name, names)


# --- the session -------------------------------------------------------------------------------------


def test_passes_are_interleaved_and_the_floor_is_taken_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "driven", lambda peer, args, folder: [line(peer, args[0], variant=args[3:] or None)])
    lines = list(session.figures(["restate", "temporal:mem"], ["W1", "W4"], passes=2, n=5))
    taken = [(one["pass"], one["peer"], one["workload"]) for one in lines]
    once = [("floor", "FLOOR"), ("ours", "W1"), ("restate", "W1"), ("temporal", "W1")]
    once += [("ours", "W4"), ("restate", "W4"), ("temporal", "W4")]
    assert taken == [(number, *each) for number in (1, 2) for each in once]
    assert lines[3]["variant"] == ["--variant", "mem"]


def test_the_name_of_a_peer_or_workload_that_is_not_known_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--peers", "restate celery"], ["--workloads", "W9"]):
        with pytest.raises(SystemExit):
            session.parsed(wrong)
    assert "'celery' is no peer" in (said := capsys.readouterr().err)
    assert "'W9' is no workload" in said


# --- the report --------------------------------------------------------------------------------------


def line(peer: str, workload: str, number: int = 1, **fields: Any) -> dict[str, Any]:
    """A line as the driver gives it."""
    return {"peer": peer, "variant": None, "workload": workload, "pass": number, "n": 5, "extra": {}} | fields


def row(lines: list[dict[str, Any]], title: str) -> dict[str, str]:
    """One row of the table, by its heads."""
    heads, _, *rows = [[cell.strip() for cell in one.split("|")[1:-1]] for one in table(Figures(lines)).splitlines()]
    [found] = [dict(zip(heads, one, strict=True)) for one in rows if one[1].startswith(title)]
    return found


def test_a_ratio_is_taken_within_each_pass() -> None:
    lines = []
    # The machine was slow in the second pass for all but Restate, and in the third for ours and for Restate.
    for number, floored, ran, restate in ((1, 4000, 3000, 500), (2, 400, 300, 600), (3, 2000, 500, 100)):
        lines.append(line("floor", "FLOOR", number, variant="WAL-FULL", per_second=floored))
        lines.append(line("floor", "FLOOR", number, variant="WAL-NORMAL", per_second=40000))
        lines.append(line("ours", "W1", number, per_second=ran))
        lines.append(line("restate", "W1", number, per_second=restate))
    found = row(lines, "sequential steps")
    assert (found["ours"], found["floor"], found["restate"]) == ("500", "2,000", "500")
    assert found["all passes"] == "3,000 / 300 / 500"
    assert (found["÷ floor"], found["÷ best peer"]) == ("0.75", "5.00 (restate)")
    assert found["target"] == "≥ 0.6 of floor: met (0.75); ≥ 3 of restate: met (5.00)"


def test_the_best_peer_is_durable_except_where_that_has_no_part() -> None:
    memory: dict[str, Any] = {"durable": False}
    lines = [line("ours", "W4", p50_ms=10.0, p99_ms=20.0), line("restate", "W4", p50_ms=20.0, p99_ms=40.0)]
    lines += [line("durabletask", "W4", p50_ms=5.0, p99_ms=6.0, **memory)]
    lines += [line("ours", "W6", seconds=0.2, extra={"rss_mb": 30.0}), line("restate", "W6", seconds=0.3)]
    lines += [line("durabletask", "W6", seconds=0.1, **memory)]
    assert row(lines, "signal to completion, p50")["÷ best peer"] == "0.50 (restate)"
    assert row(lines, "import of the package")["÷ best peer"] == "2.00 (durabletask)"
    assert row(lines, "import of the package")["durabletask (not durable)"] == "100"


def test_a_target_that_is_missed_or_not_measured_says_so() -> None:
    lines = [line("ours", "W4", p50_ms=5.5, p99_ms=15.0), line("ours", "W3", seconds=0.01)]
    assert row(lines, "signal to completion, p50")["target"] == "≤ 5 ms: **not met**"
    assert row(lines, "signal to completion, p99")["target"] == "≤ 15 ms: met"
    assert row(lines, "fan-out")["target"] == "≤ 0.5 of restate: not measured"


def test_what_an_engine_could_not_do_stands_in_its_cell() -> None:
    lines = [line("ours", "W7", seconds=0.5, extra={"repeated": 1}), line("dbos", "W7", extra={"error": "no"})]
    lines += [line("edda", "W7", extra={"timed_out": True, "cap_s": 60.0})]
    lines += [line("tinyworkflow", "W7", extra={"unsupported": "no replay"})]
    found = row(lines, "kill -9 to result")
    assert (found["dbos"], found["edda"], found["tinyworkflow"]) == ("failed", "never", "cannot")


def test_every_target_is_of_a_measure_and_against_somebody_who_can_be_measured() -> None:
    measures = {(measure.workload, measure.field) for measure in targets.MEASURES}
    for target in targets.TARGETS:
        assert (target.workload, target.field) in measures
        assert target.of in (None, "floor", *environments.PEERS)


def test_results_replace_what_stood_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page, raw = tmp_path / "page.md", tmp_path / "raw.jsonl"
    page.write_text(f"# Before\n{BEGIN}\nold\n{END}\nAfter\n")
    taken = {"at": "2026-01-01 00:00 UTC", "passes": 1, "commit": "abc", "machine": "2 cores"}
    figures = [line("ours", "W3", seconds=0.01), line("dbos", "W3", extra={"error": "lost its file"})]
    raw.write_text("".join(json.dumps(one) + "\n" for one in (taken, *figures)))
    for _ in range(2):
        assert session.main(["--read", str(raw), "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith(f"# Before\n{BEGIN}\n\n2026-01-01 00:00 UTC, 1 passes, commit abc. 2 cores.\n\n|")
    assert text.endswith(f"\n- dbos failed in W3: lost its file\n\n{END}\nAfter\n")
    assert text.count("fan-out of 200") == 1
    page.write_text("no marks")
    with pytest.raises(ValueError, match="lacks the comments"):
        write(page, "results")
    assert page.read_text() == "no marks"


def test_the_page_of_the_docs_has_a_place_for_results_and_names_every_workload() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1
    assert all(f"\n| {workload} | " in text for workload in session.WORKLOADS)
    assert all(f"`{peer}`" in text for peer in environments.PEERS)
