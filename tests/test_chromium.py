"""Finding a Chromium. Starting it is shown by the tests of pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chromium import VARIABLE, ChromiumMissing, find_chromium


def test_the_browser_that_is_named_is_taken_before_any_that_is_found(tmp_path: Path) -> None:
    for name in ("google-chrome", "chromium", "mine"):
        (tmp_path / name).touch(mode=0o755)
    path = str(tmp_path)
    assert find_chromium({"PATH": path}) == f"{path}/chromium"
    assert find_chromium({"PATH": path, VARIABLE: "mine"}) == f"{path}/mine"
    assert find_chromium({"PATH": "/nowhere", VARIABLE: f"{path}/mine"}) == f"{path}/mine"


def test_without_a_browser_it_is_said_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ChromiumMissing, match=r"package: chromium.*TINYWORKFLOW_CHROMIUM"):
        find_chromium({"PATH": str(tmp_path)})
    (tmp_path / "chromium").touch(mode=0o755)
    with pytest.raises(ChromiumMissing, match="names 'other'"):
        find_chromium({"PATH": str(tmp_path), VARIABLE: "other"})
