"""The hit lane while a second rule set is tried: one request in so many is left to the ordinary way.

Rules of this file: the lane knows the rule that answered and nothing of another, so what is to be compared
has to be matched. It declines when the next one is due (differences.py), and counts what it answers. Without
a candidate the lane itself is asked, and none of this costs anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from edgeproxy.front.lane import Lane

if TYPE_CHECKING:
    from edgeproxy.front.server import EdgeProtocol
    from edgeproxy.rules.differences import Differences


@final
class SampledLane(Lane):
    """The same lane under another name: what either learns and counts is both's. ``lane`` is asked as it is:
    it may be one that declines more (traced.py)."""

    __slots__ = ("_differences", "_lane")

    def __init__(self, lane: Lane, differences: Differences) -> None:
        self.__dict__ = lane.__dict__
        self._lane = lane
        self._differences = differences

    def answer(self, protocol: EdgeProtocol, data: bytes) -> bool:
        if self._differences.left > 0 and self._lane.answer(protocol, data):
            self._differences.left -= 1
            return True
        return False

    def answer_parsed(self, protocol: EdgeProtocol, data: bytes) -> bool:
        if self._differences.left > 0 and self._lane.answer_parsed(protocol, data):
            self._differences.left -= 1
            return True
        return False
