"""A miss answered with a head that is known: the entry at once, without what lies in between.

Rules of this file:

- Nothing is decided here. A Mould is made from a miss that has gone the ordinary way (settle.py), of what
  holds for every answer with that head under that rule (policy/shape.py), and is kept only if it makes of
  that very answer the entry that the ordinary way has made.
- Only for whole answers without Vary to plain requests: no condition, no range, nothing about storing.
  Wherever a value could change more than a text or an age there is no cast, and the ordinary way is gone.
- Moulds live in their head's memo, a few for each. One holds its rule, so another rule set's are never found.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, final

from edgeproxy.policy.decisions import Discard
from edgeproxy.policy.head import Headers, lower
from edgeproxy.policy.http_date import parse_http_date
from edgeproxy.policy.known import OF_EACH
from edgeproxy.policy.shape import Plan, extension_of, says_more
from edgeproxy.policy.validate import has_validator
from edgeproxy.rules.tags import tags_for
from edgeproxy.store.entry import Entry
from edgeproxy.store.packed import unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.engine.ask import Ask
    from edgeproxy.policy.known import KnownHead
    from edgeproxy.policy.shape import Conclusions
    from edgeproxy.policy.stored import Stored
    from edgeproxy.rules.model import Rule
    from edgeproxy.store.base import Store
    from edgeproxy.store.packed import Recipe

MOST = 32
"""Moulds of one head."""
_IMF = 29
"""Octets of a date that says the same whenever it is read (RFC 9110 §5.6.7)."""
_NOT_PLAIN = frozenset({"range", "if-none-match", "if-modified-since"})


def is_plain(request: Headers) -> bool:
    """Whether what comes of the request's answer has nothing to do with the request's fields, but for the
    coding it gets. What front/short.py takes for unusual is not among them."""
    return request.isdisjoint(_NOT_PLAIN) and not says_more(request)


@final
class Mould:
    """``heads`` is the front's: what it has rendered for casts."""

    __slots__ = (
        "_date", "_date_at", "_day", "_fields", "_modified_at", "_pick", "_plan", "_recipe", "discard",
        "heads", "known", "rule",
    )  # fmt: skip

    def __init__(self, known: KnownHead, rule: Rule, discard: Discard | None) -> None:
        self.known = known
        self.rule = rule
        self.discard = discard
        """Nothing is stored, for this reason; then there is no ``entry``."""
        self.heads: dict[object, object] = {}
        self._plan: Plan | None = None
        self._recipe: Recipe | None = None
        self._pick: Callable[[Sequence[bytes]], Sequence[bytes]] | None = None
        self._fields = Headers()
        self._date_at = self._modified_at = -1
        self._date = b""
        self._day = 0.0

    def _prepare(self, plan: Plan, recipe: Recipe, names: list[str]) -> bool:
        """``names``: of the known head's fields. False where the known values are not all that differ."""
        places = plan.kept(tuple((b"", b"%d" % at) for at in range(len(names))))
        kept = [int(at) for _, at in places]
        own = self.known.own
        if any(at in own and place not in recipe.own for place, at in enumerate(kept)):
            return False
        wanted = [kept[place] for place in recipe.own]
        if not set(wanted) <= set(own):
            return False
        self._pick = _picking([own.index(at) for at in wanted])
        self._plan, self._recipe = plan, recipe
        self._date_at = own.index(names.index("date"))
        if plan.modified >= 0:
            self._modified_at = own.index(names.index("last-modified"))
        return True

    def stored(self, values: list[bytes], length: int) -> Stored:
        """What is stored with these values, but for the times."""
        recipe, pick = self._recipe, self._pick
        assert recipe is not None and pick is not None  # noqa: S101, PT018
        return unpack(recipe.kind, recipe.octets(0.0, 0.0, 0.0, 0.0, 0, pick(values)), length)

    def entry(
        self,
        ask: Ask,
        values: list[bytes],
        body: bytes,
        asked: float,
        received: float,
        seconds: float,
        epoch: int,
        stamp: int,
    ) -> Entry | None:
        """The entry with these values of the known head's own; None where the ordinary way has to be gone."""
        plan, recipe, pick, rule = self._plan, self._recipe, self._pick, self.rule
        if plan is None or recipe is None or pick is None or len(body) > rule.overrides.max_object:
            return None
        date = values[self._date_at]
        if date != self._date:
            day = parse_http_date(date.decode("latin-1"), received)
            if day is None or len(date) != _IMF:
                return None
            self._date, self._day = date, day
        if self._modified_at >= 0 and not has_validator(
            Headers(((b"Last-Modified", values[self._modified_at]),))
        ):
            return None
        times = plan.times(self._day, received, asked)
        if times is None:
            return None
        key = ask.key
        tags: tuple[str, ...] = ()
        if rule.tags.templates or rule.tags.from_headers:
            tags = tags_for(rule, ask.matched.parts, self._fields)
        head = ask.exchange.head
        return Entry.packed(
            key.primary,
            key.host,
            key.target,
            recipe.kind,
            recipe.octets(received, *times, seconds, stamp, pick(values)),
            body,
            epoch,
            tags,
            rule.name,
            "" if key.host else f"{head.scheme}://{head.host}",
        )


def _picking(places: list[int]) -> Callable[[Sequence[bytes]], Sequence[bytes]]:
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: [values[place] for place in places]


@final
class Cast:
    """An answer from a mould: ``entry``, stored, of that ``age``, or what is passed on."""

    __slots__ = ("age", "body", "entry", "mould", "values")

    def __init__(self, mould: Mould, values: list[bytes], body: bytes, entry: Entry | None, age: int) -> None:
        self.mould = mould
        self.values = values
        self.body = body
        self.entry = entry
        self.age = age


def find(known: KnownHead, ask: Ask, *, passed: bool) -> Mould | None:
    """The mould for answers with this head to ``ask``, if there is one."""
    rule = ask.matched.rule
    key = _key(rule, ask, passed=passed)
    mould: Mould | None = known.memo.get(key)
    if mould is not None and mould.rule is rule:
        return mould
    if not passed:
        return None
    mould = Mould(known, rule, None)  # what is passed by rule is passed whatever it says
    _keep(known, key, mould)
    return mould


def _key(rule: Rule, ask: Ask, *, passed: bool) -> object:
    return (id(rule), None if passed else extension_of(ask.exchange.head.path))


def _keep(known: KnownHead, key: object, mould: Mould) -> None:
    if len(known.memo) >= MOST:
        known.memo.clear()
    known.memo[key] = mould


def make(
    known: KnownHead,
    values: list[bytes],
    ask: Ask,
    conclusions: Conclusions,
    store: Store,
    came: Entry | None,
    times: tuple[float, float],
) -> None:
    """Keep what came of an answer with this head and ``values``: the entry that was stored, ``came``, or that
    nothing is, where None. ``times``: when it was asked for and received."""
    rule = ask.rule
    plan = conclusions.plan(ask.exchange.head.path, known.head(values), rule.overrides)
    mould: Mould | None = None
    if came is None and isinstance(plan, Discard):
        mould = Mould(known, rule, plan)
    elif came is not None and isinstance(plan, Plan):
        mould = _storing(known, values, ask, plan, store, came, times)
    if mould is not None:
        _keep(known, _key(rule, ask, passed=False), mould)


def _storing(
    known: KnownHead,
    values: list[bytes],
    ask: Ask,
    plan: Plan,
    store: Store,
    came: Entry,
    times: tuple[float, float],
) -> Mould | None:
    rule, head = ask.rule, known.head(values)
    names = [lower(name) for name, _ in head.headers.raw]
    # (A lifetime that is another one each time is no recipe's.)
    own_way = came.variant or rule.key.body is not None or rule.overrides.ttl_jitter
    recipe = None if own_way else store.recipe(came.stored)
    own = [names[at] for at in known.own]
    if recipe is None or own.count("date") != 1 or len(set(own)) != len(own):
        return None
    if not OF_EACH.isdisjoint(name.lower() for name in rule.tags.from_headers):
        return None  # each has tags of its own
    mould = Mould(known, rule, None)
    mould._fields = head.headers
    if not mould._prepare(plan, recipe, names):  # noqa: SLF001
        return None
    again = mould.entry(ask, values, came.body, *times, came.fetch_seconds, came.epoch, came.started)
    same = (
        again is not None
        and again.stored == came.stored
        and (again.primary, again.host, again.target, again.tags, again.rule, again.seen_as)
        == (came.primary, came.host, came.target, came.tags, came.rule, came.seen_as)
    )
    return mould if same else None
