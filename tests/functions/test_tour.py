"""Every route of the document, by curl, against a real process."""

from __future__ import annotations

import shutil

import pytest

from tests.functions import tour
from tests.services import do_without


def test_every_route_that_the_document_names_answers_as_it_should(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("curl") is None:
        do_without(FileNotFoundError("there is no curl on the PATH"))
    assert tour.main() == 0, capsys.readouterr().out
