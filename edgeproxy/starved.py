"""Whether a process that says nothing hangs, or was given no processor.

Rules of this file:

- On a machine that does too much, or whose host stands still, a healthy worker answers as late as one that
  hangs. What tells them apart is what the system says: it waits for a processor, and has had hardly any.
- Where the system does not say (no /proc), nobody starves.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

HARDLY = 0.2
"""Of the time that has gone by: one that computes for ever has more, on any machine that works."""
_TICK = os.sysconf("SC_CLK_TCK")
_RUNNABLE = "R"


class Use(NamedTuple):
    runnable: bool
    """It has a processor, or waits for one."""
    seconds: float
    """Of processor, since it began."""


def use_of(pid: int) -> Use | None:
    """None: it is gone, or the system does not say."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # Behind the name, which may hold anything: the state, and as 12th and 13th the ticks (proc(5)).
    fields = told.rpartition(")")[2].split()
    return Use(fields[0] == _RUNNABLE, (int(fields[11]) + int(fields[12])) / _TICK)


def is_starved(before: Use | None, after: Use | None, seconds: float) -> bool:
    """``seconds`` lie between the two."""
    if before is None or after is None:
        return False
    return after.runnable and after.seconds - before.seconds < HARDLY * seconds
