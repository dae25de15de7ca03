"""What it would take to have an answer stored that is not: the line to write, or that there is none.

Rules of this file:

- Computed, not guessed: the outcome is asked again with the one line added, and only a line that helps is
  named.
- ``explain`` and the messages of failing examples say the same thing, in the same words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeproxy.policy.stored import Unsafe
from edgeproxy.policy.vocabulary import NotStored, PassReason
from edgeproxy.rules.model import PLAIN
from edgeproxy.rules.outcome import Outcome, outcome
from edgeproxy.rules.values import show_duration

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead, ResponseHead
    from edgeproxy.policy.stored import Overrides
    from edgeproxy.rules.model import Matched


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What it would take: without ``reasons`` the answer would be stored for ``ttl`` seconds (None: it needs
    a lifetime or more besides, or cannot be stored). ``needs`` is what to write, "" where no rule can allow
    it. ``plain``: no rule matches; ``keyed``: the key tells the users apart already."""

    reasons: tuple[str, ...]
    ttl: float | None
    needs: str
    plain: bool = False
    keyed: bool = False


_WORDS = {
    NotStored.SET_COOKIE: Unsafe.SET_COOKIE,
    NotStored.AUTHORIZATION: Unsafe.AUTHORIZATION,
    NotStored.RESPONSE_NO_STORE: Unsafe.NO_STORE,
    NotStored.RESPONSE_PRIVATE: Unsafe.PRIVATE,
    NotStored.RESPONSE_NO_CACHE: Unsafe.NO_CACHE,
}
_MEANT = frozenset({
    PassReason.METHOD, PassReason.RULE, NotStored.RULE, PassReason.CONTENT_NOT_A_QUERY,
    PassReason.CONTENT_CONDITIONAL,
})  # fmt: skip
"""What the rule (or the method) means to be so."""
_LIFETIME = frozenset({
    NotStored.STATUS, NotStored.SERVER_ERROR, NotStored.NO_LIFETIME, NotStored.LIFETIME_ZERO,
})  # fmt: skip
_LINES = {
    NotStored.TOO_LARGE: "max_object: ...",
    NotStored.EXTENSION: "extension_guard: off",
    PassReason.CONTENT_TOO_LARGE: "key: {body: {limit: ...}}",
    NotStored.REQUEST_NO_STORE: "request_directives: ignore",
    PassReason.REQUEST_NO_STORE: "request_directives: ignore",
}
_SOME = 60.0
"""Any lifetime: whether one would do is asked with it."""


def otherwise(
    matched: Matched, request: RequestHead, answer: ResponseHead, now: float, came: Outcome
) -> Otherwise | None:
    """Grant one unsafe word after the other until the answer is stored, or nothing more can be granted.
    None where it is stored, or is meant not to be."""
    if came.reason is None or came.reason in _MEANT:
        return None
    reasons: list[str] = []
    words: list[str] = []
    overrides = matched.rule.overrides
    plain = matched.rule is PLAIN
    keyed = bool(matched.rule.key.headers or matched.rule.key.cookies)
    while came.reason is not None:
        reasons.append(came.reason.value)
        word = _WORDS.get(came.reason) if isinstance(came.reason, NotStored) else None
        if word is None or word in overrides.unsafe:
            line = _line(matched, request, answer, now, came, overrides)
            lines = [*([_unsafe(words)] if words else []), line]
            return Otherwise(tuple(reasons), None, " and ".join(lines) if line else "", plain, keyed)
        words.append(word.value)
        overrides = replace(overrides, unsafe=overrides.unsafe | {word})
        came = _under(overrides, matched, request, answer, now)
    return Otherwise(tuple(reasons), came.ttl, _unsafe(words), plain, keyed)


def _unsafe(words: list[str]) -> str:
    return f"unsafe: [{', '.join(words)}]"


def _line(
    matched: Matched,
    request: RequestHead,
    answer: ResponseHead,
    now: float,
    came: Outcome,
    overrides: Overrides,
) -> str:
    """The line that would undo ``came.reason``, "" if there is none."""
    assert came.reason is not None  # noqa: S101
    if came.reason not in _LIFETIME:
        return _LINES.get(came.reason, "")
    # A ttl is not meant for errors; for these the status is named.
    if answer.status >= 400:
        line = f"status_ttl: {{{answer.status}: 1m}}"
        given = replace(overrides, status_ttl={**overrides.status_ttl, answer.status: _SOME})
    else:
        line = "ttl: ..."
        given = replace(overrides, ttl=_SOME)
    return line if _under(given, matched, request, answer, now).cached else ""


def _under(
    overrides: Overrides, matched: Matched, request: RequestHead, answer: ResponseHead, now: float
) -> Outcome:
    rule = replace(matched.rule, overrides=overrides)
    return outcome(replace(matched, rule=rule), request, answer, now)


def otherwise_text(otherwise: Otherwise) -> str:
    """For people; one line."""
    if otherwise.ttl is None:
        return _lacking(otherwise)
    them = "it" if len(otherwise.reasons) == 1 else f"them ({', '.join(otherwise.reasons)})"
    rule = "; no rule matches; a rule" if otherwise.plain else "; to store it all the same:"
    said = f"would be stored for {show_duration(otherwise.ttl)} without {them}{rule}"
    said += f" with {otherwise.needs} would store it" if otherwise.plain else f" {otherwise.needs}"
    return said + _key(otherwise)


def _lacking(otherwise: Otherwise) -> str:
    if not otherwise.needs:
        return "no rule can store it"
    if otherwise.plain:
        needs = "a ttl" if otherwise.needs == "ttl: ..." else otherwise.needs
        return f"no rule matches; a rule with {needs} would store it{_key(otherwise)}"
    return f"to store it, the rule needs {otherwise.needs}{_key(otherwise)}"


def _key(otherwise: Otherwise) -> str:
    if "authorization" not in otherwise.needs or otherwise.keyed:
        return ""
    return ", and key: {headers: [authorization]} lest users see each other's"
