"""What went wrong lately, by rule, status and reason, each with its last example: for people who look.

Rules of this file:

- A request that went well costs nothing here: only those with a status of 500 or more, or for which the
  origin failed, are told of.
- Bounded: MOST kinds are kept; the one that has not happened for the longest goes first.
- An example is a method, a host and a path: what follows a "?" may hold secrets, and stays in the access log,
  where the request id leads to it.
- What one worker has can be added to another's (``merged``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgeproxy.observe.trace import Trace

MOST = 64
LONGEST = 200
"""Characters of an example's path."""


class Troubles:
    """``now``: Clock.now."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kinds: dict[tuple[str, int, str], dict[str, Any]] = {}

    def note(self, trace: Trace) -> None:
        """The request did not end well, or would not have without a stale answer."""
        kind = (trace.rule, trace.status, trace.failure.value if trace.failure else trace.reason)
        now = self._now()
        held = self._kinds.pop(kind, None)
        if held is None:
            while len(self._kinds) >= MOST:
                del self._kinds[next(iter(self._kinds))]
            held = {
                "rule": trace.rule,
                "status": trace.status,
                "reason": kind[2],
                "count": 0,
                "first": now,
            }
        held["count"] += 1
        held["last"] = now
        held["method"] = trace.method
        held["url"] = f"{trace.host}{trace.target.partition('?')[0]}"[:LONGEST]
        held["request_id"] = trace.request_id
        held["saved_by"] = trace.stale_reason.value if trace.stale_reason else ""
        self._kinds[kind] = held  # the last in the order

    def told(self) -> list[dict[str, Any]]:
        """JSON-ready, the latest first; ``first`` and ``last`` in seconds since the epoch. ``saved_by``: why
        the client got a stale answer instead, "" where it did not."""
        return [dict(held) for held in reversed(self._kinds.values())]


def merged(workers: Iterable[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What several workers told, as one."""
    kinds: dict[tuple[Any, ...], dict[str, Any]] = {}
    for told in workers:
        for one in told:
            kind = (one["rule"], one["status"], one["reason"])
            held = kinds.get(kind)
            if held is None:
                kinds[kind] = dict(one)
                continue
            latest = max(held, one, key=lambda each: float(each["last"]))
            kinds[kind] = {
                **latest,
                "count": held["count"] + one["count"],
                "first": min(held["first"], one["first"]),
            }
    return sorted(kinds.values(), key=lambda each: -float(each["last"]))[:MOST]
