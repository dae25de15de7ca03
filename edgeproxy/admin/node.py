"""What the admin application can ask of a node of several workers (admin/control.py, Control).

Rules of this file:

- The parent knows nothing of the cache: it asks the workers, each on its own socket (private.py), and puts
  together what they say. A worker that does not answer in time is left out, or named where that matters.
- A purge goes to one worker: what is purged stands in memory that all of them share, and is compared on every
  read. If that worker dies meanwhile another one is asked; purging twice does no harm.
- Rules are read and checked here, once, and copied; all workers are told to take the copy. Whoever does not
  is replaced, and its replacement starts with that copy.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import quote

import aiohttp
import orjson

from edgeproxy.admin import explain_query, warm_body
from edgeproxy.admin.control import Kind, PartHealth, PurgeAnswer, Refused, ReloadResult
from edgeproxy.admin.private import DIFFERENCES, EVIDENCE, LATENCIES, PULSE, RULES
from edgeproxy.admin.problem import Problem, to_json
from edgeproxy.admin.rule_keeper import RuleKeeper
from edgeproxy.earned import report as report_of
from edgeproxy.observe import merge, pulse
from edgeproxy.observe.catalogue_parts import NODE
from edgeproxy.observe.metrics import derived
from edgeproxy.observe.percentiles import Percentiles
from edgeproxy.rules.problems import RuleError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from edgeproxy.admin.control import ExplainRequest, PurgeRequest, Replaced, State, WarmRequest
    from edgeproxy.clock import Clock
    from edgeproxy.rules.snapshot import RuleSnapshot

WARM = "/api/cache/warm"
PATIENCE = 5.0
"""Seconds for a worker's answer; the slow questions have more."""
PURGE_PATIENCE = 15.0
COUNT_PATIENCE = 60.0
PULSE_PATIENCE = 1.0
RULES_PATIENCE = 60.0
HEALTH_PATIENCE = 1.5
"""More than a worker takes to find that a part hangs (health.py)."""
HEALTH_LIMIT = 2.0

MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
"""What Percentiles.absorb raises for what is no dump."""

T = TypeVar("T")

_LOG = logging.getLogger("edgeproxy.admin")


class NoAnswer(Exception):  # noqa: N818 - it is what happened
    """The worker did not answer, or not what was expected."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes

    def json(self) -> Any:
        """Raises NoAnswer."""
        try:
            return orjson.loads(self.body)
        except ValueError as error:
            raise NoAnswer(f"no JSON: {error}") from None


class WorkerLink:
    """HTTP to one worker's own socket. Make it on the loop that uses it."""

    def __init__(self, path: Path) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=str(path)), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Sequence[tuple[str, str]] = (),
        patience: float = PATIENCE,
    ) -> Reply:
        """Raises NoAnswer after ``patience`` seconds at most."""
        if self._session.closed:
            raise NoAnswer("it has ended")
        try:
            async with (
                asyncio.timeout(patience),
                self._session.request(
                    method,
                    f"http://worker{path}",
                    data=None if body is None else BytesIO(to_json(body)),
                    params=list(query),
                ) as answer,
            ):
                return Reply(answer.status, await answer.read())
        except TimeoutError:
            raise NoAnswer(f"no answer within {patience:g} s") from None
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # RuntimeError: the link was closed meanwhile, since the worker has ended.
            raise NoAnswer(str(error) or type(error).__name__) from None

    async def alive(self, patience: float) -> bool:
        """Whether its loop turns."""
        try:
            return (await self.ask("GET", "/healthz", patience=patience)).status == 200
        except NoAnswer:
            return False

    async def close(self) -> None:
        await self._session.close()


class Member(Protocol):
    """One worker, as far as this file is concerned."""

    @property
    def name(self) -> str: ...
    @property
    def link(self) -> WorkerLink: ...


class Team(Protocol):
    """The workers, whoever keeps them running."""

    @property
    def state(self) -> State: ...

    def ready(self) -> Sequence[Member]:
        """Those that serve."""

    def describe(self) -> list[dict[str, object]]:
        """Each worker, for people."""

    def numbers(self) -> Mapping[str, int]:
        """``workers`` wanted, ``workers_ready``, ``crashes_total``, ``replacements_total``."""

    def replacement(self) -> Mapping[str, object]:
        """How the last replacement of all went, for people."""

    def replace(self, member: Member, why: str) -> None:
        """End this worker at once; another one takes its place."""

    async def replace_all(self) -> Replaced:
        """One at a time, with the settings read again. Raises Refused."""


class Node:
    """Implements Control for all workers together."""

    def __init__(self, team: Team, snapshot: RuleSnapshot, clock: Clock) -> None:
        self._team = team
        self._snapshot = snapshot
        self._clock = clock
        self._started = clock.monotonic()
        self._ended = merge.Ended()
        self._retired = Percentiles(clock.now)
        self._reloading = asyncio.Lock()
        self._reloads = self._reloads_failed = 0
        self.last_reload: ReloadResult | None = None
        self.rule_life = RuleKeeper(snapshot.in_force, self.reload_rules, self._differing)

    @property
    def state(self) -> State:
        return self._team.state

    @property
    def _last_reload_ok(self) -> bool:
        return self.last_reload is None or not self.last_reload.lines

    # -- workers come and go ----------------------------------------------------------------------------

    async def retiring(self, member: Member) -> None:
        """The worker is about to be told to end: ask what it has counted, for the last time. Once this has
        returned, it is none of the team's any more, before anything else is asked."""
        await self._scrape(member)
        try:
            told = (await member.link.ask("GET", LATENCIES, query=[("recent", "yes")])).json()
            self._retired.absorb(told)
        except NoAnswer as error:
            _LOG.warning("%s told no latencies: %s", member.name, error)
        except MALFORMED as error:
            _LOG.warning("%s told no latencies: %r", member.name, error)

    def ended(self, member: Member) -> None:
        self._ended.end(member)

    # -- rules ------------------------------------------------------------------------------------------

    async def rules(self) -> Mapping[str, object]:
        ruleset = self._snapshot.ruleset
        return {
            "version": ruleset.version,
            "source": ruleset.source,
            "rules": [{"name": r.name, "at": r.at} for r in ruleset.rules],
        }

    async def replace_workers(self) -> Replaced:
        return await self._team.replace_all()

    def record(self, how: str, by: str = "") -> None:
        """The rules in force are a version, since now. Blocks."""
        snapshot = self._snapshot
        if snapshot.in_force is not None and snapshot.wanted is not None:
            snapshot.in_force.record(snapshot.wanted, snapshot.taken, at=self._clock.now(), how=how, by=by)

    async def reload_rules(self, *, how: str = "reload", by: str = "") -> ReloadResult:
        async with self._reloading:
            before = self._snapshot.ruleset
            if self._snapshot.source is None:
                return ReloadResult(before.version, 0)
            self._reloads += 1
            try:
                ruleset = await asyncio.to_thread(self._snapshot.take)
            except (RuleError, OSError) as error:
                self._reloads_failed += 1
                _LOG.error("rules not reloaded, the old ones go on:\n%s", error)
                lines = tuple(str(error).splitlines())
                self.last_reload = ReloadResult(before.version, len(before.rules), lines)
                return self.last_reload
            members = self._team.ready()
            said = await asyncio.gather(*(self.tell_rules(member) for member in members))
            missing = tuple(why for why in said if why is not None)
            await asyncio.to_thread(self.record, how, by)
            _LOG.info("rules reloaded: %d rules, version %s", len(ruleset.rules), ruleset.version)
            self.last_reload = ReloadResult(ruleset.version, len(ruleset.rules), missing=missing)
            return self.last_reload

    async def tell_rules(self, member: Member) -> str | None:
        """Have the worker take the rules in force; why it did not, and then it is being replaced."""
        order, version = self._snapshot.order, self._snapshot.taken.mark
        if order is None:
            return None
        body = {
            "directory": str(order.directory),
            "candidate": "" if order.candidate is None else str(order.candidate),
            "percent": order.percent,
            "sample": order.sample,
        }
        try:
            reply = await member.link.ask("POST", RULES, body=body, patience=RULES_PATIENCE)
            told = reply.json()
            if reply.status == 200 and told["version"] == version:
                return None
            why = " ".join(told.get("errors", ())) or str(told.get("detail", told.get("version")))
        except NoAnswer as error:
            why = str(error)
        self._team.replace(member, f"it did not take over the rules of version {version}: {why}")
        return f"{member.name}: {why}"

    async def _differing(self) -> Sequence[Mapping[str, Any]]:
        async def ask(member: Member) -> dict[str, Any]:
            told: dict[str, Any] = (await member.link.ask("GET", DIFFERENCES)).json()
            return told

        return [told for _, told in await self._each(ask)]

    # -- the cache --------------------------------------------------------------------------------------

    async def purge(self, request: PurgeRequest) -> PurgeAnswer:
        body = purge_body(request)
        for member in self._team.ready():
            try:
                reply = await member.link.ask("POST", "/api/cache/purge", body=body, patience=PURGE_PATIENCE)
                return _purge_answer(reply)
            except NoAnswer as error:
                _LOG.warning("%s did not answer to a purge: %s", member.name, error)
        raise Problem(503, "no worker could be told to purge")

    async def count(self, request: PurgeRequest) -> PurgeAnswer:
        """A shared store is counted by every worker alike, so that the largest number is nearest; without
        one, each has its own copies."""
        body = purge_body(request)

        async def ask(member: Member) -> PurgeAnswer:
            return _purge_answer(
                await member.link.ask("POST", "/api/cache/purge", body=body, patience=COUNT_PATIENCE)
            )

        counted = [answer for _, answer in await self._each(ask)]
        if not counted:
            raise Problem(503, "no worker could be asked")
        layers = {layer: said for answer in reversed(counted) for layer, said in answer.layers.items()}
        if any(answer.objects is None or answer.bytes is None for answer in counted):
            return PurgeAnswer(layers=layers)
        put_together = max if await self._has_shared_store() else sum
        return PurgeAnswer(
            objects=put_together([answer.objects or 0 for answer in counted]),
            bytes=put_together([answer.bytes or 0 for answer in counted]),
            layers=layers,
        )

    async def _has_shared_store(self) -> bool:
        async def ask(member: Member) -> bool:
            told = (await member.link.ask("GET", "/api/cache/stats")).json()
            return "l2_name" in told.get("store", {})

        return any(shared for _, shared in await self._each(ask))

    async def entry(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        query = [("url", url), *(("header", f"{name}: {value}") for name, value in headers)]
        return await self._from_any("/api/cache/entry", query)

    async def explain(self, request: ExplainRequest) -> Mapping[str, Any]:
        told = await self._from_any("/api/explain", explain_query.encode(request))
        if told is None:
            raise Problem(503, "no worker could be asked")
        return told

    async def _from_any(self, path: str, query: Sequence[tuple[str, str]]) -> Mapping[str, Any] | None:
        """What the first worker says that answers; None where none has anything. Raises Refused."""
        for member in self._team.ready():
            try:
                reply = await member.link.ask("GET", path, query=query)
                told: dict[str, Any] = reply.json()
            except NoAnswer as error:
                _LOG.warning("%s did not answer: %s", member.name, error)
                continue
            if reply.status == 400:
                raise Refused(str(told.get("detail")))
            if reply.status == 200:
                return told
        return None

    async def refusal(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        """Of the worker that has met it last."""
        query = [("url", url), *(("header", f"{name}: {value}") for name, value in headers)]

        async def ask(member: Member) -> dict[str, Any] | None:
            reply = await member.link.ask("GET", "/api/cache/entry", query=query)
            found: dict[str, Any] | None = reply.json().get("refused")
            return found

        found = [told for _, told in await self._each(ask) if told is not None]
        return min(found, key=lambda told: told["age"], default=None)

    # -- what rules have earned -------------------------------------------------------------------------

    async def _evidence(self) -> Any:
        async def ask(member: Member) -> Any:
            return (await member.link.ask("GET", EVIDENCE)).json()

        return report_of.added([told for _, told in await self._each(ask)])

    async def savings(self) -> Mapping[str, Any]:
        return report_of.savings(await self._evidence(), self._snapshot.ruleset)

    async def doctor(self) -> Mapping[str, Any]:
        return report_of.doctor(await self._evidence(), self._snapshot.ruleset)

    # -- warm-ups ---------------------------------------------------------------------------------------

    async def warm(self, request: WarmRequest) -> Mapping[str, object]:
        """In the first worker that takes it."""
        for member in self._team.ready():
            try:
                reply = await member.link.ask("POST", WARM, body=warm_body.encode(request))
                told: dict[str, object] = reply.json()
            except NoAnswer as error:
                _LOG.warning("%s did not begin a warm-up: %s", member.name, error)
                continue
            if reply.status == 202:
                return told
            if reply.status == 400:
                raise Refused(str(told.get("detail")))
            raise Problem(reply.status, str(told.get("detail")))
        raise Problem(503, "no worker could be told to warm up")

    async def warm_jobs(self) -> Sequence[Mapping[str, object]]:
        async def ask(member: Member) -> list[dict[str, object]]:
            jobs: list[dict[str, object]] = (await member.link.ask("GET", WARM)).json()["jobs"]
            return jobs

        return [job for _, jobs in await self._each(ask) for job in jobs]

    async def warm_news(self, job: str, after: int, wait: float) -> Mapping[str, Any] | None:
        query = [("after", str(after)), ("wait", str(wait))]
        return await self._whose("GET", job, query, wait + PATIENCE)

    async def warm_cancel(self, job: str) -> Mapping[str, object] | None:
        return await self._whose("DELETE", job, (), PATIENCE)

    async def _whose(
        self, method: str, job: str, query: Sequence[tuple[str, str]], patience: float
    ) -> dict[str, Any] | None:
        """Ask the worker that has the warm-up ``job``; None where none has."""
        path = f"{WARM}/{quote(job, safe='')}"
        for member in self._team.ready():
            try:
                reply = await member.link.ask(method, path, query=query, patience=patience)
                told: dict[str, Any] = reply.json()
            except NoAnswer as error:
                _LOG.warning("%s did not answer: %s", member.name, error)
                continue
            if reply.status == 200:
                return told
        return None

    # -- numbers ----------------------------------------------------------------------------------------

    async def stats(self) -> Mapping[str, object]:
        async def ask(member: Member) -> dict[str, Any]:
            told: dict[str, Any] = (await member.link.ask("GET", "/api/cache/stats")).json()
            return told

        total = merge.merge_stats([told for _, told in await self._each(ask)])
        total["uptime_seconds"] = round(self._clock.monotonic() - self._started, 3)
        total["reloads"] = {
            "total": self._reloads,
            "failed": self._reloads_failed,
            "last_ok": self._last_reload_ok,
        }
        total["node"] = {
            **self._team.numbers(),
            "each": self._team.describe(),
            "replacement": self._team.replacement(),
        }
        return total

    async def performance(self) -> Mapping[str, object]:
        async def ask(member: Member) -> Any:
            return (await member.link.ask("GET", LATENCIES)).json()

        together = Percentiles(self._clock.now)
        together.absorb(self._retired.dump())
        for member, dump in await self._each(ask):
            try:
                together.absorb(dump)
            except MALFORMED as error:
                _LOG.warning("%s told no latencies: %r", member.name, error)
        return together.report()

    async def pulse(self, after: int, window: str, *, tables: bool) -> Mapping[str, Any]:
        query = [("after", str(after)), ("window", window), ("tables", "yes" if tables else "no")]

        async def ask(member: Member) -> dict[str, Any]:
            reply = await member.link.ask("GET", PULSE, query=query, patience=PULSE_PATIENCE)
            told: dict[str, Any] = reply.json()
            if reply.status != 200 or "slots" not in told:
                raise NoAnswer(f"{reply.status}: {told.get('detail', '')}")
            return told

        # What those that were replaced had seen in the last hour is still what the node has seen.
        retired = await pulse.gather(self._retired, after, window, tables=tables)
        if tables:
            retired |= {"wanted": [], "troubles": [], "facts": {}}
        told = pulse.merged([*(one for _, one in await self._each(ask)), retired])
        if tables:
            told["facts"] |= {
                "uptime_seconds": round(self._clock.monotonic() - self._started, 3),
                "node": {**self._team.numbers(), "each": self._team.describe()},
            }
        return told

    async def metrics(self) -> bytes:
        members = self._team.ready()
        await asyncio.gather(*(self._scrape(member) for member in members))
        total = self._ended.sum(members)
        for name, kind, value in (
            ("edgeproxy_config_reload_total", "counter", self._reloads),
            ("edgeproxy_config_reload_failed_total", "counter", self._reloads_failed),
            ("edgeproxy_config_last_reload_successful", "gauge", int(self._last_reload_ok)),
            ("edgeproxy_rules", "gauge", len(self._snapshot.ruleset.rules)),
        ):
            # Every worker has counted the same reload.
            told = total.setdefault(name, merge.Family("", kind))
            told.samples = {name: float(value)}
        for key, number in self._team.numbers().items():
            described = NODE.get(key) or derived("node", key)
            told = total[described.name] = merge.Family(described.help, described.kind)
            told.samples[described.name] = float(number)
        return merge.write(total).encode()

    async def _scrape(self, member: Member) -> None:
        try:
            reply = await member.link.ask("GET", "/metrics")
            if reply.status == 200:
                self._ended.seen(member, merge.read(reply.body.decode()))
        except (NoAnswer, ValueError) as error:
            _LOG.warning("%s told no numbers: %s", member.name, error)

    # -- health -----------------------------------------------------------------------------------------

    async def health(self) -> Mapping[str, PartHealth]:
        numbers = self._team.numbers()
        wanted, ready = numbers["workers"], numbers["workers_ready"]
        parts = {"workers": PartHealth(ready >= wanted, f"{ready} of {wanted} ready")}

        async def ask(member: Member) -> dict[str, dict[str, Any]]:
            told = (await member.link.ask("GET", "/api/health", patience=HEALTH_PATIENCE)).json()
            found: dict[str, dict[str, Any]] = told["parts"]
            return found

        for member, told in await self._each(ask):
            for part, how in told.items():
                said = PartHealth(bool(how.get("ok")), str(how.get("detail", "")))
                if part not in parts or (parts[part].ok and not said.ok):
                    detail = said.detail if said.ok else f"{member.name}: {said.detail}"
                    parts[part] = PartHealth(said.ok, detail)
        return parts

    async def _each(self, ask: Callable[[Member], Awaitable[T]]) -> list[tuple[Member, T]]:
        """Ask all at once; those that do not answer are left out."""
        members = self._team.ready()
        answers = await asyncio.gather(*(ask(member) for member in members), return_exceptions=True)
        told: list[tuple[Member, T]] = []
        for member, answer in zip(members, answers, strict=True):
            if isinstance(answer, NoAnswer):
                _LOG.warning("%s did not answer: %s", member.name, answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                told.append((member, answer))
        return told


def purge_body(request: PurgeRequest) -> dict[str, object]:
    """The body of the request that means this (purge_body.py reads it)."""
    value: object = True if request.kind is Kind.ALL else request.value
    return {request.kind.value: value, "soft": request.soft, "dry_run": request.dry_run}


def _purge_answer(reply: Reply) -> PurgeAnswer:
    """Raises Refused and NoAnswer."""
    told = reply.json()
    if reply.status == 400:
        raise Refused(str(told.get("detail")))
    if reply.status not in (200, 503, 504) or "layers" not in told:
        raise NoAnswer(f"{reply.status}: {told.get('detail', '')}")
    objects, octets = told["objects"], told["bytes"]
    return PurgeAnswer(
        told["number"],
        None if objects == "unknown" else objects,
        None if octets == "unknown" else octets,
        told["layers"],
        told.get("nodes", ()),
    )
