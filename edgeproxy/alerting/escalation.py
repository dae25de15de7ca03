"""Who has to hear of what now: escalation, repeats, and the word that it is over.

Rules of this file:

- Nothing is sent here and no time is read. What was sent counts when the receiver took it (``taken``): what
  it did not take is due again, later and later (``failed``).
- A receiver hears of an alert once when it fires; again when a later step of the plan names it; else every
  ``repeat`` seconds; and once that it is over. One that never heard of it hears of no end either.
- While the critical one of an alert fires, its warning says nothing new.
- What is due for one receiver goes out together.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.alerting.plan import Plan
    from edgeproxy.alerting.state import Episode, Key

PAUSES = (15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds until a receiver that fails is tried again."""
FORGOTTEN = 3600.0
"""Seconds after which nobody has to hear any more that something is over."""


class Kind(StrEnum):
    FIRING = "firing"
    GOES_ON = "still firing"
    OVER = "resolved"


@dataclass(frozen=True, slots=True)
class Notice:
    """``after``: seconds of firing after which the step comes that it is told by."""

    kind: Kind
    episode: Episode
    after: float


@dataclass(slots=True)
class _Heard:
    episode: Episode
    after: float
    at: float


@dataclass(slots=True)
class _Standing:
    """How it is with one receiver."""

    heard: dict[Key, _Heard]
    failures: int = 0
    """In a row."""
    until: float = 0.0
    """It is left alone."""


class Escalation:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._standing = {each.name: _Standing({}) for each in plan.receivers}

    def due(self, receiver: str, firing: Sequence[Episode], now: float) -> list[Notice]:
        """What it should be told now."""
        standing = self._standing[receiver]
        if now < standing.until:
            return []
        urgent = {each.topic for each in firing if each.alert.severity == "critical"}
        notices: list[Notice] = []
        for episode in firing:
            heard = standing.heard.get(episode.key)
            after = self._reached(receiver, episode, now)
            if heard is not None and heard.episode is not episode:
                # It came back before the word that it was over was out: it went on, and begins anew.
                heard.episode, heard.after = episode, min(heard.after, after or 0.0)
            if after is None or (episode.alert.severity != "critical" and episode.topic in urgent):
                continue
            if heard is None:
                notices.append(Notice(Kind.FIRING, episode, after))
            elif after > heard.after or now - heard.at >= self._plan.repeat:
                notices.append(Notice(Kind.GOES_ON, episode, after))
        firing_now = {each.key for each in firing}
        for key, heard in list(standing.heard.items()):
            if key in firing_now:
                continue
            over = heard.episode.over
            if over is not None and now - over > FORGOTTEN:
                del standing.heard[key]
            else:
                notices.append(Notice(Kind.OVER, heard.episode, heard.after))
        return notices

    def taken(self, receiver: str, notices: Sequence[Notice], now: float) -> None:
        """The receiver has been told these."""
        standing = self._standing[receiver]
        standing.failures, standing.until = 0, 0.0
        for notice in notices:
            key = notice.episode.key
            if notice.kind is Kind.OVER:
                standing.heard.pop(key, None)
            else:
                standing.heard[key] = _Heard(notice.episode, notice.after, now)

    def failed(self, receiver: str, now: float) -> float:
        """It did not take them. Gives the seconds until it is tried again."""
        standing = self._standing[receiver]
        pause = PAUSES[min(standing.failures, len(PAUSES) - 1)]
        standing.failures += 1
        standing.until = now + pause
        return pause

    def _reached(self, receiver: str, episode: Episode, now: float) -> float | None:
        """The last step that the episode has come to and that names the receiver."""
        lasted = episode.lasted(now)
        return max(
            (
                step.after
                for step in self._plan.steps
                if step.after <= lasted
                and receiver in step.tell
                and episode.alert.severity in step.severities
            ),
            default=None,
        )
