"""The collector of cycles looks at what is new, and at everything only when asked to.

In processes of their own: what it is told holds for all of one.
"""

from __future__ import annotations

import subprocess
import sys

_STORED = """
import gc
from edgeproxy import collector

class Thing:
    pass

collector.keep_short()
looked_at = []
gc.callbacks.insert(0, lambda phase, info: phase == "start" and info["generation"] == 2 and looked_at.append(
    sum(len(gc.get_objects(generation)) for generation in range(3))))
stored = [Thing() for _ in range(200_000)]
print(max(looked_at), len(looked_at), gc.get_freeze_count())
"""

_CYCLE = """
import gc, weakref
from edgeproxy import collector

class Thing:
    pass

collector.keep_short()
thing = Thing()
thing.itself = thing
gone = weakref.ref(thing)
gc.collect()
del thing
gc.collect()
print(gone() is not None)
collector.over_everything()
print(gone() is None, gc.get_freeze_count() > 0)
"""


def said(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_round_looks_at_what_is_new() -> None:
    most, rounds, frozen = map(int, said(_STORED))
    assert most < 20_000
    assert rounds > 5
    assert frozen > 180_000


def test_a_cycle_that_was_in_use_is_found_by_a_round_over_everything() -> None:
    assert said(_CYCLE) == ["True", "True", "True"]
