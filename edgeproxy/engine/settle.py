"""What comes of an origin's reply: stored, confirmed, joined, passed on or refused, and told to who waits.

Rules of this file:

- The purge number and the stamp of a fetch's start are taken before the origin is asked (``start``); they
  travel with the entry and every store compares them.
- Whatever comes of it, the flight is resolved exactly once; where it has to be asked for once more (None), by
  what comes of that.
- A 5xx never replaces a usable copy; an unfinished body is never an entry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never
from zlib import crc32

from edgeproxy.cluster.base import UNCACHEABLE
from edgeproxy.engine.body import SharedBody, pump
from edgeproxy.engine.coalesce import Failed, Flight, Flights, Landed, Stale, Streaming, Uncacheable
from edgeproxy.engine.exchange import Answer, FromEntry, FromStream
from edgeproxy.engine.graphql import has_errors
from edgeproxy.engine.mould import Cast, make
from edgeproxy.engine.parts import SplicedBody, counted, settled
from edgeproxy.engine.streaming import stream_of
from edgeproxy.origin.base import OriginError
from edgeproxy.policy import decisions as d
from edgeproxy.policy.decide import conclude, deliver
from edgeproxy.policy.head import Headers, ResponseHead
from edgeproxy.policy.shape import Conclusions
from edgeproxy.policy.vary import variant_id
from edgeproxy.policy.vocabulary import CacheWord, NotStored, OriginFailure
from edgeproxy.rules.tags import tags_for
from edgeproxy.store.entry import Entry, codings_of
from edgeproxy.value import value

if TYPE_CHECKING:
    from edgeproxy.clock import Clock
    from edgeproxy.engine.ask import Ask
    from edgeproxy.engine.background import Background
    from edgeproxy.engine.evidence import Evidence
    from edgeproxy.engine.exchange import Reader
    from edgeproxy.engine.failures import Failures
    from edgeproxy.engine.mould import Mould
    from edgeproxy.engine.witness import Witness
    from edgeproxy.observe.trace import Trace
    from edgeproxy.origin.arrived import KnownReply
    from edgeproxy.origin.base import AnswerBody, OriginReply
    from edgeproxy.policy.stored import Stored
    from edgeproxy.store.base import Store


@value
class Start:
    """Where a fetch stood in the order of things when it began."""

    epoch: int
    stamp: int

    def no_later_than(self, entry: Entry) -> Start:
        """With the purge number of what the answer is joined to, where that is the older one."""
        return Start(min(self.epoch, entry.epoch), self.stamp)


@value
class Received:
    """An origin's reply, with a Date."""

    head: ResponseHead
    body: AnswerBody
    request_time: float
    response_time: float


def _jittered(ask: Ask, stored: Stored, start: Start) -> Stored:
    """Expiring a little earlier, by chance: of key and moment, so that it is another one each time."""
    chance = crc32(b"%d %b" % (start.stamp, ask.key.primary.encode())) / 2**32
    share = ask.rule.overrides.ttl_jitter * chance
    return replace(stored, freshness=stored.freshness.shortened(share))


def _spliced(reply: Received, entry: Entry, join: d.Join) -> Received:
    """The reply as it is once joined to the stored part."""
    before, after = entry.body[: join.before], entry.body[join.after :]
    return replace(reply, head=join.head, body=SplicedBody(before, reply.body, join.size, after))


class Settler:
    """Per worker."""

    def __init__(
        self,
        *,
        clock: Clock,
        store: Store,
        background: Background,
        flights: Flights,
        failures: Failures,
        witness: Witness,
    ) -> None:
        self._clock = clock
        self._store = store
        self._background = background
        self._flights = flights
        self._failures = failures
        self._witness = witness
        self._conclusions = Conclusions()
        self._conclude = self._conclusions.conclude
        self.evidence: Evidence | None = None

    def start(self) -> Start:
        """Where a fetch that begins now stands."""
        return Start(self._store.epoch, int(self._clock.now() * 1e9))

    def settle(
        self,
        ask: Ask,
        entry: Entry | None,
        flight: Flight | None,
        start: Start,
        reply: Received,
        *,
        own: bool,
        asked: d.Asked = d.Asked.WHOLE,
    ) -> Answer | None:
        """What comes of the origin's reply to what it was ``asked``; ``own``: to the client's own conditions.
        None: it has to be asked once more, without them."""
        trace = ask.exchange.trace
        if entry is not None and self._store.overtaken(entry):
            entry = None  # purged meanwhile: neither confirmed nor served in place of an error
        if own and reply.head.status == 304:
            # The client's own conditions went along, and this is the answer to them.
            return self._discard(ask, d.Discard(NotStored.NOT_MODIFIED, remember=False), reply, flight)
        answer = d.OriginAnswer(reply.head, reply.request_time, reply.response_time)
        stored = entry.stored if entry is not None else None
        conclusion = self._conclude(
            ask.exchange.head, stored, answer, ask.rule.overrides, self._clock.now(), asked
        )
        if isinstance(conclusion, d.Join):
            assert entry is not None  # noqa: S101
            reply, start = _spliced(reply, entry, conclusion), start.no_later_than(entry)
            conclusion = conclusion.then
        if isinstance(conclusion, d.Store | d.Refresh) and ask.rule.overrides.ttl_jitter:
            conclusion = replace(conclusion, stored=_jittered(ask, conclusion.stored, start))
        match conclusion:
            case d.Store():
                return self._store_answer(ask, conclusion, reply, start, flight, asked)
            case d.Refresh():
                assert entry is not None  # noqa: S101
                reply.body.close()
                # None where it was purged meanwhile: the whole is asked for.
                return self._refresh(ask, conclusion, entry, start, flight)
            case d.Refetch():
                reply.body.close()
                return None
            case d.Discard():
                if conclusion.forget and entry is not None:
                    self._store.forget(entry)
                return self._discard(ask, conclusion, reply, flight)
            case d.ServeStaleOnError():
                assert entry is not None  # noqa: S101
                reply.body.close()
                self._failures.cool(ask, flight, OriginFailure.SERVER_ERROR)
                trace.failure = OriginFailure.SERVER_ERROR
                error = OriginError(OriginFailure.SERVER_ERROR, status=reply.head.status)
                self._failures.resolve(flight, Stale(entry, error))
                return self._failures.stale(ask, entry, conclusion.reason)
            case d.GiveUp():
                reply.body.close()
                return self._failures.on_failure(ask, None, flight, OriginError(conclusion.failure))
            case _:
                assert_never(conclusion)

    def cast(
        self, mould: Mould, ask: Ask, flight: Flight | None, start: Start, reply: KnownReply
    ) -> Cast | None:
        """As ``settle`` for a plain miss, where ``mould`` says what comes of it; None where it does not."""
        trace, discard = ask.exchange.trace, mould.discard
        if discard is not None:
            self.note(trace, reply)
            self._uncacheable(ask, discard.reason, flight, remember=discard.remember)
            return Cast(mould, reply.values, reply.octets, None, 0)
        entry = mould.entry(
            ask, reply.values, reply.octets, reply.request_time, reply.response_time, trace.origin_seconds,
            start.epoch, start.stamp,
        )  # fmt: skip
        if entry is None:
            return None
        self.note(trace, reply)
        self._failures.cooldown_over(ask, flight)
        self._publish(ask, entry, flight)
        return Cast(mould, reply.values, reply.octets, entry, int(entry.age(self._clock.now())))

    def cast_passed(self, mould: Mould, ask: Ask, reply: KnownReply) -> Cast:
        """What the rule passes."""
        self.note(ask.exchange.trace, reply)
        return Cast(mould, reply.values, reply.octets, None, 0)

    def remember(self, ask: Ask, reply: KnownReply, answer: Answer | None) -> None:
        """Answers like this one, to a plain miss, need not go all the way again."""
        trace = ask.exchange.trace
        # A node that hears of no purges keeps nothing for now; what comes is of the kind that is stored.
        stored = trace.stored or trace.not_stored is NotStored.UNHEARD
        came = answer.entry if isinstance(answer, FromEntry) and stored else None
        times = (reply.request_time, reply.response_time)
        make(reply.known, reply.values, ask, self._conclusions, self._store, came, times)

    def note(self, trace: Trace, reply: OriginReply) -> None:
        """The origin has answered."""
        self._witness.answered()
        trace.forwarded_status = reply.status

    # -- outcomes ---------------------------------------------------------------------------------------

    def _store_answer(
        self,
        ask: Ask,
        conclusion: d.Store,
        reply: Received,
        start: Start,
        flight: Flight | None,
        asked: d.Asked,
    ) -> Answer:
        trace, rule, stored = ask.exchange.trace, ask.rule, conclusion.stored
        ask.exchange.on_vanish = None
        self._failures.cooldown_over(ask, flight)
        whole = None if conclusion.withheld else reply.body.take_all()
        if whole is not None:
            reply.body.close()
            entry = self._entry(ask, stored, whole, start)
            if len(whole) > rule.overrides.max_object:
                self._uncacheable(ask, NotStored.TOO_LARGE, flight, remember=True)
            elif has_errors(rule, entry.stored, whole):
                self._uncacheable(ask, NotStored.GRAPHQL_ERRORS, flight, remember=False)
                rule = replace(rule, client_cache_control=None, cdn_cache_control=None)
            elif not counted(stored, len(whole)):
                self._uncacheable(ask, NotStored.PARTIAL, flight, remember=False)
            else:
                self._publish(ask, entry, flight)
            now = self._clock.now()
            serve = deliver(ask.exchange.head, entry.stored, rule.overrides, now, own=asked is d.Asked.PART)
            return FromEntry(entry, serve, rule)
        draft = told = self._entry(ask, stored, None, start)
        if conclusion.withheld:
            told = _with_withheld(draft, conclusion.withheld)
        body = SharedBody(reply.body.length, rule.overrides.max_object, self._clock)
        streaming = Streaming(draft, body)
        trace.not_stored = self._not_kept(draft, body)
        trace.stored = trace.not_stored is None
        trace.ttl = stored.freshness.fresh_until - self._clock.now()
        answer = stream_of(ask, told, streaming, self._clock.now(), own=asked is d.Asked.PART)
        self._failures.resolve(flight, streaming, joinable=True)
        self._background.spawn(
            self._land(ask, draft, start, reply.body, body, flight), f"fill {ask.key.primary}"
        )
        return answer

    def adopt(self, ask: Ask, reply: Received, epoch: int) -> Entry | None:
        """A draft of what an answer that came past the cache would be as one to ``ask``; None where it may
        not be stored, or a purge since ``epoch``, when it was asked for, concerns it."""
        answer = d.OriginAnswer(reply.head, reply.request_time, reply.response_time)
        conclusion = conclude(ask.exchange.head, None, answer, ask.rule.overrides, self._clock.now())
        if not isinstance(conclusion, d.Store):
            return None
        draft = self._entry(ask, conclusion.stored, None, Start(epoch, int(reply.request_time * 1e9)))
        return None if self._store.overtaken(draft) else draft

    def keep(self, ask: Ask, draft: Entry, reply: Received, epoch: int) -> Reader:
        """Have the body of an adopted answer stored, as of ``epoch``: what to read instead of the reply's."""
        body = SharedBody(reply.body.length, ask.rule.overrides.max_object, self._clock)
        reader = body.join()
        trace = ask.exchange.trace
        trace.not_stored = self._not_kept(draft, body)
        trace.stored = trace.not_stored is None
        start = Start(epoch, draft.started)
        self._background.spawn(
            self._land(ask, draft, start, reply.body, body, None), f"fill {ask.key.primary}"
        )
        return reader

    async def _land(
        self,
        ask: Ask,
        draft: Entry,
        start: Start,
        source: AnswerBody,
        body: SharedBody,
        flight: Flight | None,
    ) -> None:
        """Read the body to its end; what is whole and in time becomes an entry."""
        try:
            await pump(source, body)
            if body.error is not None and body.error.failure is not OriginFailure.ABANDONED:
                # The next request is not to be broken off too, where something stale can be sent.
                self._failures.cool(ask, flight, body.error.failure)
            if body.outgrown:
                self._store.note_uncacheable(ask.key.primary)
                if flight is not None and flight.lease is not None:
                    flight.lease.end(UNCACHEABLE)
            elif (
                body.complete
                and counted(draft.stored, body.size)
                and not has_errors(ask.rule, draft.stored, whole := body.whole())
            ):
                self._put(ask, self._entry(ask, draft.stored, whole, start))
        finally:
            if flight is not None:
                self._flights.end(flight)

    def _refresh(
        self, ask: Ask, conclusion: d.Refresh, entry: Entry, start: Start, flight: Flight | None
    ) -> Answer | None:
        """The origin confirmed ``entry``. None when a purge has overtaken it: it must not be revived."""
        trace, rule = ask.exchange.trace, ask.rule
        fresh = self._entry(ask, conclusion.stored, entry.body, start)
        if fresh.stored.etag == entry.stored.etag:
            fresh.codings.update(entry.coded)
        if self._store.overtaken(entry) or self._store.overtaken(fresh):
            return None
        self._failures.cooldown_over(ask, flight)
        trace.word = CacheWord.REVALIDATED
        self._publish(ask, fresh, flight)
        told = _with_withheld(fresh, conclusion.withheld) if conclusion.withheld else fresh
        serve = deliver(ask.exchange.head, told.stored, rule.overrides, self._clock.now())
        return FromEntry(told, serve, rule)

    def _publish(self, ask: Ask, entry: Entry, flight: Flight | None) -> None:
        trace = ask.exchange.trace
        trace.stored = self._put(ask, entry)
        fresh_until = entry.fresh_until if entry.is_packed else entry.stored.freshness.fresh_until
        trace.ttl = fresh_until - self._clock.now()
        if not trace.stored:
            trace.not_stored = self._store.why_not(entry)
        self._failures.resolve(flight, Landed(entry))

    def _put(self, ask: Ask, entry: Entry) -> bool:
        """Into the store, joined to the part that is there, where they fit; False where it is not stored."""
        there = self._store.peek(entry.primary, ask.select).entry
        kept = settled(entry, there, self._clock.now())
        if kept is not None and len(kept.body) > ask.rule.overrides.max_object:
            kept = entry  # the two together are too large
        put = kept is not None and self._store.put(kept)
        if put and self.evidence is not None:
            self.evidence.stored(ask, there, entry)
        return put

    def _not_kept(self, draft: Entry, body: SharedBody) -> NotStored | None:
        """Why what is on its way will not be stored, as far as that is known now."""
        if self._store.overtaken(draft):
            return NotStored.PURGED
        return self._store.unkept(draft.size + (body.length or 0))

    def _discard(self, ask: Ask, conclusion: d.Discard, reply: Received, flight: Flight | None) -> Answer:
        exchange = ask.exchange
        exchange.trace.not_stored = conclusion.reason
        if self.evidence is not None:
            self.evidence.refused(ask, reply.head, conclusion.reason)
        if conclusion.reason is NotStored.SERVER_ERROR and not conclusion.remember:
            # A failure is shared with those who wait, as a failure: the status, never the body.
            self._failures.cool(ask, flight, OriginFailure.SERVER_ERROR)
            error = OriginError(OriginFailure.SERVER_ERROR, status=reply.head.status)
            self._failures.resolve(flight, Failed(error))
        else:
            self._uncacheable(ask, conclusion.reason, flight, remember=conclusion.remember)
        exchange.leave_with_client()
        return FromStream(reply.head, reply.body, ask.rule, shareable=False)

    def _uncacheable(self, ask: Ask, reason: NotStored, flight: Flight | None, *, remember: bool) -> None:
        ask.exchange.trace.not_stored = reason
        if remember:
            self._store.note_uncacheable(ask.key.primary)
        self._failures.resolve(flight, Uncacheable(reason))

    def _entry(self, ask: Ask, stored: Stored, body: bytes | None, start: Start) -> Entry:
        """``body`` None: a draft, whose body is still under way."""
        if body is not None and stored.length != len(body):
            stored = replace(stored, length=len(body))
        return Entry(
            primary=ask.key.primary,
            host=ask.key.host,
            target=ask.key.target,
            variant=variant_id(stored.vary, stored.selecting),
            stored=stored,
            body=body or b"",
            epoch=start.epoch,
            started=start.stamp,
            tags=tags_for(ask.rule, ask.matched.parts, stored.headers),
            rule=ask.rule.name,
            fetch_seconds=ask.exchange.trace.origin_seconds,
            seen_as="" if ask.key.host else f"{ask.exchange.head.scheme}://{ask.exchange.head.host}",
        )


def _with_withheld(entry: Entry, withheld: Headers) -> Entry:
    """For the one who asked, on its way only: what may be stored, coded or learned is never this one."""
    headers = Headers((*entry.stored.headers.raw, *withheld.raw))
    stored = replace(entry.stored, headers=headers)
    return entry.copied(stored=stored, codings=codings_of(entry.codings))
