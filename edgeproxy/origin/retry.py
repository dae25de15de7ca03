"""Whether a request may be sent again, and how long that waits.

Rules of this file:

- Pure. Idempotent methods only, unless the rule says otherwise (RFC 9110 §9.2.2); never once anything of an
  answer was handed on: who asks here still holds the outcome.
- A body is read once: with one, only what failed before anything was sent is repeated.
- A timeout is repeated at another origin only: the same one would take as long again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.origin.client import IDEMPOTENT
from edgeproxy.origin.member import CONNECT, ERRORS, TIMEOUTS
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.origin.base import Forward, OriginError, OriginReply
    from edgeproxy.rules.pools import Retries as Policy


def kind(failure: OriginFailure) -> str | None:
    """In the words of ``retries: {on}``; None for what is never repeated."""
    if failure in CONNECT:
        return "connect"
    if failure in TIMEOUTS and failure is not OriginFailure.WHOLE_TIMEOUT:
        return "timeout"
    return "reset" if failure in (OriginFailure.RESET, OriginFailure.BAD_RESPONSE) else None


def may_repeat(policy: Policy, forward: Forward, outcome: OriginReply | OriginError) -> bool:
    """Whether policy and method let the request be sent again after this."""
    failure = getattr(outcome, "failure", None)
    what = kind(failure) if failure is not None else "5xx"
    if what is None or what not in policy.on or forward.retry == "none":
        return False
    if forward.body is not None and what != "connect":
        return False
    return forward.retry == "any" or forward.method in IDEMPOTENT


def elsewhere_only(outcome: OriginReply | OriginError) -> bool:
    return getattr(outcome, "failure", None) in TIMEOUTS


def is_error(reply: OriginReply) -> bool:
    return reply.head.status in ERRORS


def pause(policy: Policy, repeats: int, chance: Callable[[], float]) -> float:
    """Seconds before the next repeat at the same origin, after so many: exponential, with full jitter."""
    return min(policy.longest, policy.backoff * 2.0 ** min(repeats, 30)) * chance()
