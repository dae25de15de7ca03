"""The rounds of Python's collector of cycles: short, however much is stored.

Rules of this file:

- A whole round looks at every object there is, and everything waits. Nearly all objects here are stored
  answers, which no round ever finds anything in: L1 lets go of them, and they are gone. A million of them
  would be looked at again whenever a quarter more has come.
- So what a whole round has looked at and found in use is not looked at again (``gc.freeze``): each round
  takes what has come since the one before, some thousand objects. Frozen objects are freed as ever when
  nobody refers to them.
- Only a cycle that was in use when it was frozen and is let go of later is missed. Where memory has grown
  by more than what is stored explains (heap.py), one round takes everything.
"""

from __future__ import annotations

import gc

MIDDLE, WHOLE = 4, 1
"""So many small rounds (of some hundred objects each) to a middle one, and of these to a whole one, and one
more: all takes three looks at each new object however it is cut, so it is cut small."""
_WHOLE_ROUND = 2


def keep_short() -> None:
    """From now on; for the life of the process. What is there now is not looked at again."""
    small, _, _ = gc.get_threshold()
    gc.set_threshold(small, MIDDLE, WHOLE)
    if _after_round not in gc.callbacks:
        gc.callbacks.append(_after_round)
    gc.collect()


def over_everything() -> int:
    """One round over all there is, frozen or not: a third of a second for 300,000 stored answers. How
    many objects it found in cycles that nobody uses."""
    gc.unfreeze()
    return gc.collect()


def _after_round(phase: str, info: dict[str, int]) -> None:
    if phase == "stop" and info["generation"] == _WHOLE_ROUND:
        gc.freeze()
