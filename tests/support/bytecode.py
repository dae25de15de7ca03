"""Compiled modules, kept for the many processes that tests start.

Rules of this file: only where the environment forbids Python to write any (PYTHONDONTWRITEBYTECODE, usual in
containers); the tree stays clean all the same, since they go beside pytest's own cache. Without them every
process compiles all of edgeproxy again, which is half of its start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PLACE = Path(__file__).resolve().parents[2] / ".pytest_cache" / "bytecode"


def keep_bytecode() -> None:
    """In this process and in those that it starts."""
    if not sys.dont_write_bytecode or sys.pycache_prefix is not None:
        return
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(PLACE)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # noqa: TID251 - of this process and its children
    os.environ["PYTHONPYCACHEPREFIX"] = str(PLACE)  # noqa: TID251 - as above
