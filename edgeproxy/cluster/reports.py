"""What the workers of all nodes have said last of how far they have come: kept from looks and from news.

Rules of this file:

- Pure. A look is all that stood in Redis at one moment, and the place in the stream of news at which that
  was; a piece of news is one worker's, at its own place. So neither a look that arrives after newer news nor
  news that a look has been ahead of take anything back. Looks are in order, and so are news.
- Times are Redis's own, in milliseconds: no two clocks are compared.
- Reports are from outside: one that cannot be read is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.value import value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Position = tuple[int, int]
"""A place in a stream: milliseconds, sequence."""


@value
class Report:
    """One worker's. Times in milliseconds, by Redis's clock."""

    node: str
    name: str
    at: int
    seen: Position
    lease: int

    @property
    def until(self) -> int:
        """When its node trusts its memory no more, unless it is heard of again."""
        return self.at + self.lease


class Reports:
    """``place``: up to where the news are known; ``now``: Redis's time at the last look."""

    def __init__(self) -> None:
        self.place: Position = (0, 0)
        self.now = 0
        self._looked: Position = (0, 0)
        """The place of the last look."""
        self._by_worker: dict[bytes, Report] = {}
        self._since: dict[bytes, tuple[Position, Report | None]] = {}
        """The news, until a look has them too."""

    def looked(self, now: int, place: Position, told: Mapping[bytes, Report]) -> None:
        self.now = now
        self._looked = place
        self.place = max(self.place, place)
        self._by_worker = dict(told)
        self._since = {worker: news for worker, news in self._since.items() if news[0] > place}
        for worker, (_, report) in self._since.items():
            self._take(worker, report)

    def heard(self, place: Position, worker: bytes, report: Report | None) -> None:
        """None: the worker has ended."""
        if place <= self._looked:
            return
        self.place = max(self.place, place)
        self._since[worker] = (place, report)
        self._take(worker, report)

    def _take(self, worker: bytes, report: Report | None) -> None:
        if report is None:
            self._by_worker.pop(worker, None)
        else:
            self._by_worker[worker] = report

    def by_node(self) -> dict[str, list[Report]]:
        nodes: dict[str, list[Report]] = {}
        for report in self._by_worker.values():
            nodes.setdefault(report.node, []).append(report)
        return nodes


def read_report(worker: bytes, said: bytes) -> Report | None:
    words: Sequence[str] = said.decode("latin-1").split(" ")
    node = worker.partition(b"/")[0].decode("latin-1")
    try:
        at, milliseconds, sequence, lease = map(int, words[:4])
        return Report(node, words[4], at, (milliseconds, sequence), lease)
    except (ValueError, IndexError):
        return None


def read_place(name: bytes) -> Position:
    """Of a record of a stream, from its name there. Raises ValueError."""
    milliseconds, _, sequence = name.partition(b"-")
    return int(milliseconds), int(sequence)
