"""How long an answer of the access log would have been kept under a rule, as far as the log tells.

Rules of this file:

- The rule's lifetime where it gives one, as policy/freshness.py takes it; else the answer's own, which the
  log knows only where the rule in force then gave none.
- Whether an answer may be stored is known where it was stored, or from the named reason why not; a reason
  that the rule lifts (``unsafe``) hides those that would have come after it. What is not known is UNKNOWN:
  nothing is guessed.
- No field of an answer is logged: that no-cache or must-revalidate hold against a rule's ttl is not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeproxy.policy.freshness import status_ttl
from edgeproxy.policy.vocabulary import CacheWord, NotStored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.rules.model import Rule

UNKNOWN: Final = -1.0
"""In place of seconds: the log does not tell."""
NOT_STORED: Final = 0.0

_FROM_STORE = frozenset({CacheWord.HIT, CacheWord.UPDATING, CacheWord.STALE, CacheWord.REVALIDATED})
_UNSAFE = {
    NotStored.RESPONSE_NO_STORE: "no_store",
    NotStored.RESPONSE_PRIVATE: "private",
    NotStored.SET_COOKIE: "set_cookie",
    NotStored.AUTHORIZATION: "authorization",
}
"""What a word in ``unsafe`` lifts; what would have been looked at after it, nobody knows."""
_NO_TIME = frozenset({
    NotStored.NO_LIFETIME, NotStored.LIFETIME_ZERO, NotStored.SERVER_ERROR, NotStored.STATUS,
})  # fmt: skip
"""Not stored for want of a lifetime, everything else having been looked at before."""
_NOT_TOLD = frozenset(
    {NotStored.RULE, NotStored.EXTENSION, NotStored.TOO_LARGE, "rule-says-pass", "hit-for-miss"}
)
"""Reasons of the rule that was in force, which say nothing of another."""


def from_store(word: str) -> bool:
    """Whether the client was given a stored answer."""
    return word in _FROM_STORE


def entity_status(status: int, word: str, *, stored: bool) -> int:
    """The status of the stored answer: 304 is what this client was given of a whole one."""
    return 200 if status == 304 and (stored or word in _FROM_STORE) else status


def lasts(
    rule: Rule,
    status: int,
    *,
    word: str,
    reason: str,
    stored: bool,
    logged: float | None,
    then: Mapping[str, Rule],
    under: str,
) -> float:
    """Seconds from receipt, NOT_STORED or UNKNOWN. ``logged``: the whole lifetime that the log tells, under
    the rule named ``under``, of which ``then`` may know what it says."""
    overrides = rule.overrides
    if status == 206:
        return UNKNOWN  # which part, and whether the whole was stored: the log has no ranges
    if overrides.no_store or status_ttl(status, overrides) == 0:
        return NOT_STORED
    given = status_ttl(status, overrides)
    if given is None and status < 400:
        given = overrides.ttl
    kept = stored or word in _FROM_STORE
    if not kept:
        may = _may_be_stored(rule, reason, gives=given is not None, then=then.get(under))
        if may is not True:
            return UNKNOWN if may is None else NOT_STORED
    if given is None:
        own = _own(then.get(under), status, logged)
        if own is None:
            return UNKNOWN
        given = own if overrides.ttl_min is None or status >= 400 else max(own, overrides.ttl_min)
    return given if overrides.ttl_max is None else min(given, overrides.ttl_max)


def _may_be_stored(rule: Rule, reason: str, *, gives: bool, then: Rule | None) -> bool | None:
    """None: the log does not tell."""
    if reason in _UNSAFE:
        lifted = _UNSAFE[NotStored(reason)] in {word.value for word in rule.overrides.unsafe}
        return None if lifted else False
    if reason in _NO_TIME:
        if gives or rule.overrides.ttl_min is not None:
            return True
        # What another rule withheld ("404: 0"), the answer may give.
        return False if then is not None and not then.overrides.status_ttl else None
    return None if not reason or reason in _NOT_TOLD else False


def _own(then: Rule | None, status: int, logged: float | None) -> float | None:
    """The answer's own lifetime, known where the rule in force then left it alone."""
    if then is None or logged is None:
        return None
    o = then.overrides
    bounded = o.ttl_min is not None or o.ttl_max is not None
    ruled = status_ttl(status, o) is not None or (status < 400 and o.ttl is not None)
    return None if bounded or ruled else max(0.0, logged)
