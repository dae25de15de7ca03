"""What a notice says: to people in words, to the console and to files as one line of JSON each.

Rules of this file: no figures but those of the alerts, so nothing of a request or its client is ever sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from edgeproxy.alerting.escalation import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.alerting.escalation import Notice
    from edgeproxy.alerting.state import Episode


@dataclass(frozen=True, slots=True)
class Message:
    """``kind``: failure, warning, success or info, as Apprise has them. ``lines``: the same, to be kept."""

    title: str
    body: str
    kind: str
    lines: tuple[bytes, ...]


def composed(notices: Sequence[Notice], instance: str, now: float) -> Message:
    """One for all of them. ``now``: seconds since the epoch, as the times of the episodes."""
    paragraphs = [_paragraph(notice, instance, now) for notice in notices]
    on = [notice.episode.alert.severity for notice in notices if notice.kind is not Kind.OVER]
    over = sum(notice.kind is Kind.OVER for notice in notices)
    counted = [(on.count(severity), severity) for severity in ("critical", "warning")]
    told = ", ".join(f"{number} {what}" for number, what in (*counted, (over, "resolved")) if number)
    told = told.replace(" warning", " warnings") if on.count("warning") > 1 else told
    kind = "failure" if "critical" in on else "warning" if on else "success"
    lines = tuple(_line(notice, instance, now) for notice in notices)
    return Message(f"edgeproxy {instance}: {told}", "\n\n".join(paragraphs), kind, lines)


def trial(instance: str, now: float) -> Message:
    """To see whether a receiver can be reached."""
    told = "This is a test: nothing is wrong. Notices of alerts reach you here."
    line = orjson.dumps({"at": _utc(now), "kind": "test", "instance": instance, "summary": told})
    return Message(f"edgeproxy {instance}: test", told, "info", (line,))


def told(episode: Episode, instance: str, now: float) -> dict[str, Any]:
    """One alert, JSON-ready. Times in seconds since the epoch; ``for``: seconds since it fired."""
    return {
        "alert": episode.alert.name,
        "severity": episode.alert.severity,
        "rule": episode.alert.rule,
        "labels": dict(episode.labels),
        "summary": episode.summary(instance),
        "runbook": episode.alert.runbook,
        "value": episode.value,
        "since": episode.since,
        "fired": episode.fired,
        "over": episode.over,
        "for": None if episode.fired is None else round(episode.lasted(now), 3),
    }


def _paragraph(notice: Notice, instance: str, now: float) -> str:
    episode = notice.episode
    lasted = _lasted(episode.lasted(now))
    summary = episode.summary(instance)
    if notice.kind is Kind.OVER:
        return f"Resolved after {lasted}: {summary}"
    begins = "Since" if notice.kind is Kind.FIRING else f"For {lasted}, since"
    return (
        f"{episode.alert.severity.capitalize()}: {summary}\n"
        f"{episode.alert.name}. {begins} {_utc(episode.since)}.\n{episode.alert.runbook}"
    )


def _line(notice: Notice, instance: str, now: float) -> bytes:
    whole = told(notice.episode, instance, now)
    return orjson.dumps(
        {
            "at": _utc(now),
            "kind": notice.kind.value,
            "instance": instance,
            **{key: whole[key] for key in ("alert", "severity", "rule", "labels", "summary", "for")},
            "since": _utc(notice.episode.since),
        }
    )


def _lasted(seconds: float) -> str:
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if hours:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _utc(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"
