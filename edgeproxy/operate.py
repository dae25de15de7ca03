"""What the admin application can ask of a worker, and how it is done (admin/control.py, Control).

Rules of this file: each method is a few lines over one part; a reload is read and checked whole before the
first object of the old rules is let go, and where the files are as they were, nothing is done at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import urlsplit

from edgeproxy.admin.control import Kind, PartHealth, PurgeAnswer, Refused, ReloadResult
from edgeproxy.admin.problem import Problem
from edgeproxy.admin.rule_keeper import RuleKeeper
from edgeproxy.earned import report as report_of
from edgeproxy.engine.aside import aside, let_go
from edgeproxy.engine.invalidate import url_order
from edgeproxy.key import build_key
from edgeproxy.observe import pulse
from edgeproxy.observe.access_log import mask
from edgeproxy.origin import report
from edgeproxy.policy.head import Headers, RequestHead, ResponseHead
from edgeproxy.policy.joining import content_range
from edgeproxy.policy.vary import selecting_values
from edgeproxy.policy.vocabulary import CacheWord
from edgeproxy.rules.differences import Differences
from edgeproxy.rules.explain import explain
from edgeproxy.rules.last_answer import UNKNOWN, WITHOUT_HOST, LastAnswer, last_answer
from edgeproxy.rules.problems import RuleError
from edgeproxy.rules.taken import take
from edgeproxy.store.purge import PurgeKind, PurgeOrder
from edgeproxy.warm.warmer import ENDED, Busy, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgeproxy.admin.control import Alerts, ExplainRequest, PurgeRequest, Replaced, State, WarmRequest
    from edgeproxy.app import Worker
    from edgeproxy.rules.history import InForce, Order
    from edgeproxy.rules.taken import Taken, Wanted
    from edgeproxy.store.entry import Entry

log = logging.getLogger("edgeproxy")


NOBODY = "there is one worker and nobody to replace it: start with --workers 2 or more"
MOST_NEWS = 1000
"""Results of a warm-up that are told at once."""


class About(TypedDict):
    host: str
    fields: tuple[tuple[str, str], ...]


class Operator:
    """Implements Control for one worker."""

    def __init__(self, worker: Worker, in_force: InForce | None, taken: Taken) -> None:
        """``in_force`` None: which rules it is under is for others to say."""
        self._worker = worker
        self._in_force = in_force
        self._taken = taken
        self._reloading = asyncio.Lock()
        self.last_reload: ReloadResult | None = None
        self.alerts: Alerts | None = None
        self.rule_life = RuleKeeper(in_force, self.reload_rules, self._differing_here)

    @property
    def state(self) -> State:
        return self._worker.state

    # -- rules ------------------------------------------------------------------------------------------

    async def rules(self) -> Mapping[str, object]:
        ruleset = self._taken.ruleset
        return {
            "version": ruleset.version,
            "source": ruleset.source,
            "rules": [{"name": r.name, "at": r.at} for r in ruleset.rules],
        }

    async def reload_rules(self, *, how: str = "reload", by: str = "") -> ReloadResult:
        in_force = self._in_force
        if in_force is None:
            return ReloadResult(self._taken.ruleset.version, 0)
        result, wanted = await self._take(in_force.wanted)
        if wanted is not None:
            now = self._worker.clock.now()
            await aside(partial(in_force.record, wanted, self._taken, at=now, how=how, by=by))
        return result

    async def take_rules(self, order: Order) -> ReloadResult:
        result, _ = await self._take(order.wanted)
        return replace(result, version=self._taken.mark)

    async def differing(self) -> Mapping[str, object]:
        found = self._taken.differences
        return Differences().told() if found is None else found.told()

    async def _differing_here(self) -> list[Mapping[str, Any]]:
        return [await self.differing()]

    async def _take(self, read: Callable[[], Wanted]) -> tuple[ReloadResult, Wanted | None]:
        """Be under the rules that ``read`` gives. None where that went wrong."""
        worker = self._worker
        async with self._reloading:
            before = self._taken
            try:
                wanted, taken = await aside(partial(_taken, read, before))
                if taken is not before:
                    worker.origin.configure(worker.given.completed(taken.pools))
            except RuleError as error:
                lines = tuple(str(error).splitlines())
                log.error("rules not reloaded, the old ones go on:\n%s", error)  # noqa: TRY400 - no fault of ours
                return self._not_taken(lines), None
            except ValueError as error:
                log.error("rules not reloaded, the old ones go on: pools: %s", error)  # noqa: TRY400 - as above
                return self._not_taken((f"pools: {error}",)), None
            worker.metrics.reloaded(ok=True)
            version = taken.ruleset.version
            self.last_reload = ReloadResult(version, len(taken.ruleset.rules))
            if taken is before:
                log.info("rules reloaded: version %s, as before", version)
                return self.last_reload, wanted
            self._taken = taken
            worker.engine.matcher = taken.matcher
            worker.under(taken)
            if worker.handler.short is not None:
                worker.handler.short.forget_plans()
            worker.warming.rules_changed()
            log.info("rules reloaded: %d rules, version %s", len(taken.ruleset.rules), taken.mark)
            things: list[object] = [*before.rules, before.matcher]
            del before
            await let_go(things)
            return self.last_reload, wanted

    def _not_taken(self, lines: tuple[str, ...]) -> ReloadResult:
        ruleset = self._taken.ruleset
        self._worker.metrics.reloaded(ok=False)
        self.last_reload = ReloadResult(ruleset.version, len(ruleset.rules), lines)
        return self.last_reload

    async def replace_workers(self) -> Replaced:
        raise Refused(NOBODY)

    # -- the cache --------------------------------------------------------------------------------------

    async def purge(self, request: PurgeRequest) -> PurgeAnswer:
        receipt = await self._worker.store.purge(self._order(request))
        nodes = [
            {"node": node.name, "number": node.number, "at": round(node.at, 3), "said": node.said}
            for node in receipt.nodes
        ]
        return PurgeAnswer(receipt.number, receipt.objects, receipt.octets, receipt.layers, nodes)

    async def count(self, request: PurgeRequest) -> PurgeAnswer:
        found = await self._worker.store.count(self._order(request))
        if found is None:
            return PurgeAnswer(layers={"l2": "ok"})
        return PurgeAnswer(objects=found[0], bytes=found[1], layers={"l1": "ok"})

    def _order(self, request: PurgeRequest) -> PurgeOrder:
        try:
            if request.kind is Kind.URL:
                host, target = split_url(request.value)
                return url_order(self._worker.engine.matcher, host, target, soft=request.soft)
            if request.kind in (Kind.PREFIX, Kind.PATTERN):
                host, value = split_url(request.value)
                return PurgeOrder(PurgeKind(request.kind.value), value, host=host, soft=request.soft)
            return PurgeOrder(PurgeKind(request.kind.value), request.value, soft=request.soft)
        except ValueError as error:
            raise Refused(str(error)) from None

    async def entry(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, Any] | None:
        request = _get(url, headers)
        matched = self._worker.engine.matcher.match(request)
        key = build_key(request, matched.rule.key)
        store = self._worker.store
        entries = {
            e.variant: e for e in (*await store.inspect_shared(key.primary), *store.inspect(key.primary))
        }
        if not entries:
            return None
        now = self._worker.clock.now()

        def is_selected(entry: Entry) -> bool:
            stored = entry.stored
            return stored.selecting == selecting_values(stored.vary, request, matched.rule.overrides)

        variants = [{**describe(each, now), "selected": is_selected(each)} for each in entries.values()]
        return {
            "url": url,
            "key": key.primary,
            "rule": matched.rule.name,
            "variants": sorted(variants, key=lambda told: not told["selected"]),
        }

    async def explain(self, request: ExplainRequest) -> Mapping[str, Any]:
        host, target = split_url(request.url)
        scheme = "https" if request.url.lower().startswith("https:") else "http"
        try:
            fields = Headers.of(request.headers)
            given = host or (fields.get("host") or "").lower()
            head = RequestHead(request.method, scheme, given or "localhost", target, fields)
            matcher, unknown = self._worker.engine.matcher, ""
            answer: ResponseHead | LastAnswer | None = None
            hostless = not given
            if request.status or request.answer_headers:
                answer = ResponseHead(request.status or 200, "", Headers.of(request.answer_headers))
            elif hostless and matcher.match(head).rule.key.host:
                unknown = WITHOUT_HOST
            else:
                entry = await self.entry(request.url, request.headers) or {"variants": ()}
                refused = await self.refusal(request.url, request.headers)
                answer = last_answer(request.method, entry["variants"], refused)
                unknown = UNKNOWN if answer is None else ""
            found = explain(matcher, head, answer, unknown=unknown, any_host=hostless)
        except ValueError as error:  # letters that no field or target can carry
            raise Refused(str(error)) from None
        return {"explanation": found.to_json(), "text": found.text()}

    async def refusal(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        request = _get(url, headers)
        matched = self._worker.engine.matcher.match(request)
        found = self._worker.ledger.refusal(build_key(request, matched.rule.key).primary)
        if found is None:
            return None
        age = max(0.0, self._worker.clock.now() - found.when)
        return {
            "rule": found.rule, "reason": found.reason, "age": _milliseconds(age), "status": found.status,
            "headers": [list(field) for field in found.fields],
        }  # fmt: skip

    # -- what rules have earned -------------------------------------------------------------------------

    async def evidence(self) -> Mapping[str, Any]:
        """What has been counted, to be added to other workers'."""
        self._fold()
        tally: dict[str, dict[str, float]] = {}
        for name, slot in self._worker.metrics.tally.rules.items():
            slot.fold_lane()
            tally[name] = {
                "requests": slot.requests, "hits": slot.hits, "passes": slot.words[CacheWord.BYPASS],
                "saved_seconds": slot.saved, "saved_bytes": slot.hit_bytes,
            }  # fmt: skip
        return {**self._worker.ledger.told(), "tally": tally}

    async def savings(self) -> Mapping[str, Any]:
        return report_of.savings(await self.evidence(), self._taken.ruleset)

    async def doctor(self) -> Mapping[str, Any]:
        return report_of.doctor(await self.evidence(), self._taken.ruleset)

    # -- warm-ups ---------------------------------------------------------------------------------------

    async def warm(self, request: WarmRequest) -> Mapping[str, object]:
        warming = self._worker.warming
        how: Pace = {"rate": request.rate, "concurrency": request.concurrency}
        about: About = {"host": request.host, "fields": request.headers}
        try:
            if request.urls:
                job = warming.warm_urls(request.urls, **about, **how)
            elif request.sitemap:
                job = warming.warm_sitemap(request.sitemap, hosts=request.hosts, **about, **how)
            else:
                job = warming.warm_most_wanted(request.most_wanted, **how)
        except ValueError as error:
            raise Refused(str(error)) from None
        except Busy as error:
            raise Problem(503, str(error), {"Retry-After": "10"}) from None
        return job.told()

    async def warm_jobs(self) -> Sequence[Mapping[str, object]]:
        return [job.told() for job in self._worker.warming.warmer.jobs.values()]

    async def warm_news(self, job: str, after: int, wait: float) -> Mapping[str, Any] | None:
        found = self._worker.warming.warmer.jobs.get(job)
        if found is None:
            return None
        if len(found.results) <= after and found.state not in ENDED and wait > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await found.news.wait()
        return {**found.told(), "news": [r.told() for r in found.results[after : after + MOST_NEWS]]}

    async def warm_cancel(self, job: str) -> Mapping[str, object] | None:
        warmer = self._worker.warming.warmer
        found = warmer.jobs.get(job)
        if found is None:
            return None
        warmer.cancel(found)
        return found.told()

    # -- numbers ----------------------------------------------------------------------------------------

    def store_numbers(self) -> dict[str, int | float | str]:
        told = self._worker.store.stats()
        return {name: value for name, value in told.items() if isinstance(value, int | float | str)}

    def origin_numbers(self) -> dict[str, int | float | str]:
        return report.sums(self._worker.origin)

    def origin_rows(self) -> dict[str, dict[str, dict[str, int | float | str]]]:
        return report.rows(self._worker.origin, self._worker.clock.now())

    def _fold(self) -> None:
        if self._worker.handler.lane is not None:
            self._worker.handler.lane.fold()

    async def stats(self) -> Mapping[str, object]:
        self._fold()
        return self._worker.metrics.snapshot()

    async def performance(self) -> Mapping[str, object]:
        self._fold()
        return self._worker.percentiles.report()

    async def latencies(self, *, recent: bool = False) -> Mapping[str, object]:
        """What ``performance`` is made of, to be added to other workers'."""
        self._fold()
        return self._worker.percentiles.dump(recent=recent)

    async def pulse(self, after: int, window: str, *, tables: bool) -> Mapping[str, Any]:
        self._fold()
        worker = self._worker
        told = await pulse.gather(worker.percentiles, after, window, tables=tables)
        if tables:
            wanted, matcher = worker.warming.wanted, worker.engine.matcher
            await wanted.work_out(matcher)
            told["wanted"] = [[w.again.url, w.rule, w.weight] for w in wanted.top(pulse.WANTED, matcher)]
            told["troubles"] = worker.telemetry.troubles.told()
            told["facts"] = {
                **worker.metrics.facts(),
                "connections": len(worker.server.connections),
                "in_flight": worker.handler.in_flight,
            }
        return told

    async def metrics(self) -> bytes:
        self._fold()
        return self._worker.metrics.render()

    async def health(self) -> Mapping[str, PartHealth]:
        store = await self._worker.store.health()
        parts = {name: PartHealth(not told.startswith("degraded"), told) for name, told in store.items()}
        return {**parts, "origin": await self._origin_health()}

    async def _origin_health(self) -> PartHealth:
        ok, detail = await report.health(self._worker.origin, self._worker.clock.now())
        return PartHealth(ok=ok, detail=detail)


def _taken(read: Callable[[], Wanted], present: Taken) -> tuple[Wanted, Taken]:
    wanted = read()
    return wanted, take(wanted, present, mask)


def _get(url: str, headers: Sequence[tuple[str, str]]) -> RequestHead:
    """Raises Refused."""
    host, target = split_url(url)
    scheme = "https" if url.lower().startswith("https:") else "http"
    fields = Headers.of(headers)
    return RequestHead("GET", scheme, host or (fields.get("host") or "").lower(), target, fields)


def split_url(url: str) -> tuple[str | None, str]:
    """Host (None where none is given: any host) and target. Raises Refused."""
    if url.startswith(("/", "*")):
        return None, url.partition("#")[0]
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc:
        raise Refused(f"{url!r}: expected a path (on any host) or an http URL")
    rest = url.partition("#")[0].partition("://")[2]
    target = rest[len(parts.netloc) :]
    if not target.startswith("/"):
        target = f"/{target}"
    return parts.netloc.lower(), target


def _milliseconds(seconds: float | None) -> float | None:
    """Seconds, to the millisecond."""
    return None if seconds is None else round(seconds, 3)


def describe(entry: Entry, now: float) -> dict[str, object]:
    """One stored variant, for people: no body, no secrets of the answer's fields beyond what clients get."""
    stored, freshness = entry.stored, entry.stored.freshness
    return {
        "variant": entry.variant,
        "vary": dict(zip(stored.vary, stored.selecting, strict=True)),
        "status": stored.status,
        "length": len(entry.body),
        "part": None if stored.part is None else content_range(stored.part),
        "codings": {coding: len(body) for coding, body in entry.coded if body},
        "rule": entry.rule,
        "tags": list(entry.tags),
        "age": _milliseconds(freshness.age(now)),
        "since": _milliseconds(now - freshness.received),
        "ttl": _milliseconds(freshness.fresh_until - now),
        "lifetime": _milliseconds(freshness.lifetime),
        "lifetime_source": freshness.source.value,
        "fresh": freshness.is_fresh(now),
        "stale_while_revalidate": _milliseconds(freshness.stale_while_revalidate),
        "stale_if_error": _milliseconds(freshness.stale_if_error),
        "stale_if_disconnected": _milliseconds(freshness.stale_if_disconnected),
        "keep": _milliseconds(freshness.keep),
        "must_validate": freshness.must_validate,
        "never_stale": freshness.never_stale,
        "purge_number": str(entry.epoch),  # too large for a number of JavaScript's
        "hits": entry.hits,
        "size": entry.size,
        "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in stored.headers.raw],
    }
