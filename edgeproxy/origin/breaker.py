"""One origin's circuit breaker: whether it may be asked, or is left alone for a while.

Rules of this file:

- Pure: driven by the ``now`` it is given, chance included (``chance()`` gives 0 to 1).
- Closed: everything passes. It opens on so many failures to connect in a row, or when of enough requests
  in ten seconds too many failed. Open: nothing passes for a pause that doubles each time, with jitter.
  Half-open: one request at a time passes; if it is answered the breaker closes, if it fails the breaker
  opens again.
- Only who took the trial (``try_one``) decides it: what was under way before says nothing of now.
- Where nobody better could have been asked, a trial that failed at once has cost nobody anything: the next
  one comes SOON, however far the pause has grown, so that who is back is not left alone for a minute. (Who
  cannot be connected to is watched in another way: keeper.py.)
- Time that passes closed shortens the next pause again: one doubling for each FORGIVEN seconds.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.origin.window import Window
    from edgeproxy.rules.pools import Breaker as Policy

FORGIVEN = 30.0
AT_ONCE = 1.0
SOON = 1.5
"""Seconds."""


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """``until``: when an open one lets a trial through; ``opens``: how often it has opened."""

    __slots__ = (
        "_chance",
        "_closed_at",
        "_connects",
        "_trial",
        "_tried_at",
        "_trips",
        "_window",
        "cannot_connect",
        "opens",
        "policy",
        "reason",
        "state",
        "until",
    )  # fmt: skip

    def __init__(self, policy: Policy, window: Window, chance: Callable[[], float]) -> None:
        self.policy = policy
        self.state = State.CLOSED
        self.until = -math.inf
        self.reason = ""
        self.opens = 0
        self.cannot_connect = False
        """Whether it opened because nobody could connect."""
        self._window = window
        self._chance = chance
        self._connects = 0
        self._trips = 0
        self._trial = False
        self._tried_at = -math.inf
        self._closed_at = -math.inf

    def ready(self, now: float) -> bool:
        """Whether a request may pass now (for other than a closed one: as a trial)."""
        if self.state is State.CLOSED:
            return True
        return not self._trial and now >= self.until

    def try_one(self, now: float) -> None:
        """The trial begins; ``ready`` said so."""
        self.state = State.HALF_OPEN
        self._trial = True
        self._tried_at = now

    def postpone(self, until: float) -> None:
        """No trial before then."""
        self.until = max(self.until, until)

    def hurry(self, now: float) -> None:
        """There are signs that the origin is back: the next request is a trial."""
        if self.state is State.OPEN:
            self.until = min(self.until, now)

    def answered(self, now: float, *, trial: bool = False) -> None:
        self._connects = 0
        if trial:
            self._trial = False
            self.close(now)

    def follow(self, until: float, *, connect: bool) -> bool:
        """Another worker's has opened, or its trial has failed or may be made. True: this one has opened."""
        self.until = until
        if self.state is not State.CLOSED:
            return False
        self.state = State.OPEN
        self.cannot_connect = connect
        self.reason = "another worker's requests failed"
        self.opens += 1
        self._trips += 1
        return True

    def close(self, now: float) -> None:
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._closed_at = now
            self._connects = 0
            self._window.forget()

    def failed(
        self, now: float, why: str, *, connect: bool, trial: bool = False, alone: bool = False
    ) -> bool:
        """A failure that the window has counted already; ``alone``: nobody else could have been asked. True:
        the breaker has opened with it."""
        if trial:
            self._trial = False
        policy = self.policy
        if not policy.enabled:
            return False
        if self.state is not State.CLOSED:
            if not trial:
                return False
            self._open(now, why, connect=connect)
            if alone and not connect and now - self._tried_at < AT_ONCE:
                self.until = min(self.until, now + SOON)
            return True
        self._connects = self._connects + 1 if connect else 0
        window = self._window
        if self._connects >= policy.connects:
            self._open(now, f"{self._connects} failures to connect in a row: {why}", connect=True)
            return True
        if window.total >= policy.requests and window.failed >= policy.ratio * window.total:
            self._open(
                now, f"{window.failed} of {window.total} requests in 10 s failed: {why}", connect=connect
            )
            return True
        return False

    def abandoned(self) -> None:
        """The trial ended and says nothing (its client left): the next request is one."""
        self._trial = False
        if self.state is State.HALF_OPEN:
            self.state = State.OPEN

    def _open(self, now: float, why: str, *, connect: bool) -> None:
        self.cannot_connect = connect
        if self.state is State.CLOSED:
            forgiven = min(self._trips, (now - self._closed_at) // FORGIVEN) if self._trips else 0
            self._trips -= int(forgiven)
        pause = min(self.policy.longest, self.policy.base * 2.0 ** min(self._trips, 30))
        self._trips += 1
        self.opens += 1
        self.state = State.OPEN
        self.reason = why
        # Up to a tenth less: origins that failed together, and workers, do not come back together.
        self.until = now + pause * (1.0 - 0.1 * self._chance())
