"""What ``conclude`` makes of a plain answer, remembered by the answer's shape.

Rules of this file:

- An origin's answers are mostly one head over and over, with another Date, ETag, Last-Modified and
  Content-Length. What follows from the rest (storable or not, lifetime, which fields are kept, what it varies
  on) is worked out once, by ``conclude`` itself, and the differing values are put in.
- Never another conclusion than ``conclude``'s: wherever a differing value could change more than an age, a
  length or a field's text, there is no plan and ``conclude`` is asked (a test compares the two).
- For plain requests only: a GET without a body, whose fields say nothing about storing; and for whole answers
  to them: what a part is good for depends on its Content-Range and on what was asked for. Bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from operator import itemgetter
from typing import TYPE_CHECKING, final

from edgeproxy.policy.conclude import conclude
from edgeproxy.policy.decisions import Asked, Discard, OriginAnswer, Store
from edgeproxy.policy.extension import extension
from edgeproxy.policy.head import EMPTY, Headers, lower
from edgeproxy.policy.http_date import parse_http_date
from edgeproxy.policy.known import OF_EACH
from edgeproxy.policy.stored import Freshness, LifetimeSource, Stored
from edgeproxy.policy.validate import has_validator
from edgeproxy.policy.vary import selecting_values
from edgeproxy.policy.vocabulary import NotStored

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.policy.decisions import Conclusion, Failed
    from edgeproxy.policy.head import FieldNames, RawField, RequestHead, ResponseHead
    from edgeproxy.policy.stored import Overrides

MOST_SHAPES = 1024
MOST_POLICIES = 64
LONGEST_SHAPE = 4096
"""Octets of the fields that make a shape; a longer one is not remembered."""

_PARTIAL = 206
_DIFFER = OF_EACH | {"set-cookie"}
"""Fields of which the shape has only that they are there."""
_SAYS_MORE = frozenset({"cache-control", "pragma", "authorization"})
"""Request fields on which storing may depend."""
_STATED = frozenset({
    LifetimeSource.RULE, LifetimeSource.CDN_CACHE_CONTROL, LifetimeSource.S_MAXAGE, LifetimeSource.MAX_AGE,
})  # fmt: skip
"""Lifetimes that do not depend on Date, Expires or Last-Modified."""
_OF_THE_SHAPE = frozenset({
    NotStored.RULE, NotStored.STATUS_UNKNOWN, NotStored.RESPONSE_NO_STORE, NotStored.RESPONSE_PRIVATE,
    NotStored.VARY_STAR, NotStored.SET_COOKIE, NotStored.EVENT_STREAM, NotStored.EXTENSION,
})  # fmt: skip
"""Reasons that no differing value can change."""


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """``kept`` picks the fields that are stored; ``date``, ``length``, ``modified`` say where these stand
    (-1: nowhere, or it does not matter); ``lifetime`` counts from receipt where ``from_receipt``."""

    kept: Callable[[tuple[RawField, ...]], tuple[RawField, ...]]
    date: int
    length: int
    modified: int
    lifetime: float
    from_receipt: bool
    stored: Stored

    def times(self, date: float, received: float, asked: float) -> tuple[float, float] | None:
        """Initial age and lifetime of an answer with this Date, by RFC 9111 §4.2.3 as policy/freshness.py has
        it, for one without Age; None where it is stale as it comes: whether that is of any use is
        conclude's to say."""
        age = max(0.0, floor(received) - date, received - asked)
        lifetime = self.lifetime + age if self.from_receipt else self.lifetime
        return (age, lifetime) if lifetime > age else None


@final
class Conclusions:
    """One worker's memory of shapes."""

    def __init__(self) -> None:
        self._by_policy: dict[int, tuple[Overrides, dict[object, Plan | Discard | None]]] = {}

    def conclude(
        self,
        request: RequestHead,
        stored: Stored | None,
        answer: OriginAnswer | Failed,
        overrides: Overrides,
        now: float,
        asked: Asked = Asked.WHOLE,
    ) -> Conclusion:
        """As policy.conclude.conclude."""
        if (
            stored is not None
            or asked is not Asked.WHOLE
            or not isinstance(answer, OriginAnswer)
            or answer.head.status == _PARTIAL
            or request.method != "GET"
            or request.has_body
            or says_more(request.headers)
        ):
            return conclude(request, stored, answer, overrides, now, asked)
        shape = _shape(request.path, answer.head)
        if shape is None:
            return conclude(request, None, answer, overrides, now)
        plans = self._plans(overrides)
        plan = plans.get(shape)
        if plan is None:
            concluded = conclude(request, None, answer, overrides, now)
            if shape not in plans and _octets(answer.head.headers.raw) <= LONGEST_SHAPE:
                if len(plans) >= MOST_SHAPES:
                    plans.clear()
                plans[shape] = _plan(answer, overrides, concluded)
            return concluded
        if type(plan) is Discard:
            return plan
        assert isinstance(plan, Plan)  # noqa: S101
        made = _made(plan, request, answer, overrides)
        return made if made is not None else conclude(request, None, answer, overrides, now)

    def plan(self, path: str, head: ResponseHead, overrides: Overrides) -> Plan | Discard | None:
        """What holds for every plain answer like this one, as far as it is remembered: asks for it that
        would have gone to ``conclude`` get this Discard, or what the Plan makes of them."""
        shape = _shape(path, head)
        return None if shape is None else self._plans(overrides).get(shape)

    def _plans(self, overrides: Overrides) -> dict[object, Plan | Discard | None]:
        # By identity: a rule's overrides are one object as long as the rule set lives, and it is held here.
        known = self._by_policy.get(id(overrides))
        if known is None:
            if len(self._by_policy) >= MOST_POLICIES:
                self._by_policy.clear()
            known = self._by_policy[id(overrides)] = (overrides, {})
        return known[1]


def says_more(request: Headers) -> bool:
    """Whether the request's fields say something about storing."""
    return not request.isdisjoint(_SAYS_MORE)


def extension_of(path: str) -> str:
    """Of the path, what the guard against deception compares the answer's type with."""
    return extension(path) if "." in path or "%" in path else ""


def _shape(path: str, head: ResponseHead) -> object:
    names = head.headers.field_names
    if not names.shared:
        return None
    says = names.memo.get(_DIFFER)
    if says is None:
        says = names.memo[_DIFFER] = _rest(names)
    return (extension_of(path), head.status, head.reason, names, says(head.headers.raw))


def _rest(names: FieldNames) -> Callable[[tuple[RawField, ...]], object]:
    """Picks the fields that do not differ."""
    places = [place for place, name in enumerate(names.raw) if lower(name) not in _DIFFER]
    return itemgetter(*places) if places else lambda _: ()


def _octets(raw: tuple[RawField, ...]) -> int:
    return sum(len(name) + len(value) for name, value in raw)


def _plan(answer: OriginAnswer, overrides: Overrides, concluded: Conclusion) -> Plan | Discard | None:
    """What holds for every answer of this shape, or None where that cannot be said."""
    if isinstance(concluded, Discard):
        return concluded if concluded.reason in _OF_THE_SHAPE else None
    if not isinstance(concluded, Store) or concluded.withheld != EMPTY:
        return None
    stored = concluded.stored
    freshness = stored.freshness
    names = [lower(name) for name, _ in answer.head.headers.raw]
    if (
        freshness.source not in _STATED
        or freshness.must_validate
        or "age" in names
        or names.count("date") != 1
        or names.count("content-length") > 1
        or overrides.ttl_min is not None
        or overrides.ttl_max is not None
    ):
        return None
    modified = -1
    if "etag" not in names and "last-modified" in names:
        modified = names.index("last-modified")  # the only validator, if it is a date
        if not has_validator(answer.head.headers):
            return None
    from_receipt = freshness.source is LifetimeSource.RULE
    kept = _indices(answer.head.headers.raw, stored.headers.raw)
    if kept is None or len(kept) < 2:
        return None
    return Plan(
        kept=itemgetter(*kept),
        date=names.index("date"),
        length=names.index("content-length") if "content-length" in names else -1,
        modified=modified,
        lifetime=freshness.lifetime - freshness.initial_age if from_receipt else freshness.lifetime,
        from_receipt=from_receipt,
        stored=stored,
    )


def _indices(raw: tuple[RawField, ...], kept: tuple[RawField, ...]) -> list[int] | None:
    """Where the kept fields stand in ``raw``; None if they are not simply some of them, in order."""
    found: list[int] = []
    at = 0
    for pair in kept:
        while at < len(raw) and raw[at] is not pair:
            at += 1
        if at == len(raw):
            return None
        found.append(at)
        at += 1
    return found


def _made(plan: Plan, request: RequestHead, answer: OriginAnswer, overrides: Overrides) -> Store | None:
    """The conclusion with this answer's values; None where one of them may change more than a value."""
    raw = answer.head.headers.raw
    received = answer.response_time
    date = parse_http_date(raw[plan.date][1].decode("latin-1"), received)
    length = -1
    if plan.length >= 0:
        digits = raw[plan.length][1]
        if len(digits) > 18 or not digits.isdigit():
            return None
        length = int(digits)
    if date is None or length > overrides.max_object:
        return None
    if plan.modified >= 0 and not has_validator(Headers((raw[plan.modified],))):
        return None
    times = plan.times(date, received, answer.request_time)
    if times is None:
        return None
    age, lifetime = times
    model = plan.stored
    before = model.freshness
    freshness = Freshness(
        received,
        age,
        lifetime,
        before.stale_while_revalidate,
        before.stale_if_error,
        before.stale_if_disconnected,
        before.keep,
        must_validate=False,
        never_stale=before.never_stale,
        source=before.source,
    )
    vary = model.vary
    return Store(
        Stored(
            model.status,
            model.reason,
            Headers(plan.kept(raw)),
            freshness,
            length,
            vary,
            selecting_values(vary, request, overrides) if vary else (),
            model.coding,
        )
    )
