"""`python -m tinyworkflow_core.dev` is the process that serves, as `supervising.py` starts it. Not for people."""

from __future__ import annotations

import sys

from .supervising import be_the_child

be_the_child(sys.argv[1])
