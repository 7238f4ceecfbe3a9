"""`python -m tinyworkflow_core.cli` is the `tinyworkflow` command."""

from __future__ import annotations

from . import main

main()
