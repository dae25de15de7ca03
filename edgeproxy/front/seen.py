"""Whether something has come before: what is met once is not worth remembering, what comes again is.

Rules of this file: by hash, so that what comes once costs a set entry; two with one hash are learned a time
too early, which is all that can go wrong. Bounded: when full it forgets all.
"""

from __future__ import annotations

from typing import final


@final
class Seen:
    """``most``: entries."""

    __slots__ = ("_marks", "_most")

    def __init__(self, most: int) -> None:
        self._marks: set[int] = set()
        self._most = most

    def before(self, octets: bytes) -> bool:
        """Whether these octets came before; they have from now on."""
        mark = hash(octets)
        if mark in self._marks:
            return True
        if len(self._marks) >= self._most:
            self._marks.clear()
        self._marks.add(mark)
        return False

    def clear(self) -> None:
        self._marks.clear()

    def __len__(self) -> int:
        return len(self._marks)
