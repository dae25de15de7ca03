"""Breakers and budgets of one node as one: what a worker learns of an origin, all know a moment later.

Rules of this file:

- A breaker that opens, is tried in vain, or closes, says so on the board (board.py); the other workers look
  there four times a second, and follow. So no worker asks a dead origin any more a quarter of a second after
  the first one has found out, and it is tried once for each pause, however many workers there are.
- A trial under way here is not disturbed by what others say: its outcome is the newer.
- What is extra is counted for the node. Two workers that begin in the same moment may both find room.
- Without a board nothing is different from one worker alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgeproxy.origin.breaker import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgeproxy.clock import Clock
    from edgeproxy.origin.board import Board, Said
    from edgeproxy.origin.member import Member

EVERY = 0.25
"""Seconds between two looks."""


class Neighbours:
    def __init__(self, board: Board | None, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._serial = -1
        self._known: dict[str, tuple[int, bool, float]] = {}
        """Name -> number, whether open, until when: what was said last, by us or by others."""

    @property
    def alone(self) -> bool:
        return self._board is None

    def join(self, member: Member) -> None:
        """Its budget is the node's from now on."""
        board = self._board
        if board is not None:
            member.budget.others = partial(board.others_spent, _name(member))
            member.budget.tell = partial(board.spent, _name(member))

    def changed(self, member: Member) -> None:
        """Say it, where it is news."""
        breaker, name = member.breaker, _name(member)
        if self._board is None or breaker.state is State.HALF_OPEN:
            return
        is_open = breaker.state is State.OPEN
        known = self._known.get(name, (0, False, 0.0))
        if is_open == known[1] and (not is_open or breaker.until == known[2]):
            return
        number = self._board.tell(name, is_open=is_open, connect=breaker.cannot_connect, until=breaker.until)
        self._known[name] = (number, is_open, breaker.until)

    async def follow(self, members: Callable[[], Iterable[Member]]) -> None:
        """Until cancelled."""
        while True:
            self.look(members())
            await self._clock.sleep(EVERY)

    def look(self, members: Iterable[Member]) -> None:
        board = self._board
        if board is None or board.serial == self._serial:
            return
        self._serial = board.serial
        for member in members:
            said = board.read(_name(member))
            if said is not None and said.number != self._known.get(_name(member), (0,))[0]:
                self._known[_name(member)] = (said.number, said.open, said.until)
                self._adopt(member, said)

    def forget(self) -> None:
        """Members are others now: read everything again."""
        self._serial = -1
        if self._board is not None:
            self._board.forget()

    def _adopt(self, member: Member, said: Said) -> None:
        breaker, now = member.breaker, self._clock.now()
        if breaker.state is State.HALF_OPEN:
            return
        if said.open:
            if breaker.policy.enabled and breaker.follow(said.until, connect=said.connect):
                member.changed(member, now)
        elif breaker.state is State.OPEN:
            breaker.close(now)
            member.changed(member, now)


def _name(member: Member) -> str:
    return f"{member.pool} {member.name}"
