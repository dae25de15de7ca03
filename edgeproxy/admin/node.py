"""What the admin application can ask of a node of several workers (admin/control.py, Control).

Rules of this file:

- The parent knows nothing of the cache: it asks the workers, each on its own socket (private.py), and puts
  together what they say. A worker that does not answer in time is left out (team.py), or named where that
  matters. Rules are node_rules.py's, sums figures.py's.
- A purge goes to one worker: what is purged stands in memory that all of them share, and is compared on every
  read. If that worker dies meanwhile another one is asked; purging twice does no harm.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from edgeproxy.admin import explain_query, warm_body
from edgeproxy.admin.control import Alerts, Kind, PurgeAnswer, Refused
from edgeproxy.admin.figures import Figures
from edgeproxy.admin.node_rules import NodeRules
from edgeproxy.admin.private import EVIDENCE
from edgeproxy.admin.problem import Problem
from edgeproxy.admin.team import each, first
from edgeproxy.admin.worker_link import PATIENCE, NoAnswer
from edgeproxy.earned import report as report_of
from edgeproxy.rules.last_answer import Source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeproxy.admin.control import (
        ExplainRequest,
        PartHealth,
        PurgeRequest,
        ReloadResult,
        Replaced,
        State,
        WarmRequest,
    )
    from edgeproxy.admin.rule_keeper import RuleKeeper
    from edgeproxy.admin.team import Member, Team
    from edgeproxy.admin.worker_link import Reply
    from edgeproxy.clock import Clock
    from edgeproxy.rules.snapshot import RuleSnapshot

WARM = "/api/cache/warm"
PURGE_PATIENCE = 15.0
COUNT_PATIENCE = 60.0


class Watching(Alerts, Protocol):
    def numbers(self) -> Mapping[str, int]:
        """By their keys in catalogue_parts.py."""


class Node:
    """Implements Control for all workers together."""

    def __init__(self, team: Team, snapshot: RuleSnapshot, clock: Clock) -> None:
        self._team = team
        self.node_rules = NodeRules(team, snapshot, clock)
        self.figures = Figures(team, self.node_rules, clock)
        self.alerts: Alerts | None = None

    def watched_by(self, alerts: Watching) -> None:
        self.alerts = alerts
        self.figures.alerts = alerts.numbers

    @property
    def state(self) -> State:
        return self._team.state

    async def replace_workers(self) -> Replaced:
        return await self._team.replace_all()

    # -- rules ------------------------------------------------------------------------------------------

    @property
    def last_reload(self) -> ReloadResult | None:
        return self.node_rules.last

    @property
    def rule_life(self) -> RuleKeeper:
        return self.node_rules.life

    async def rules(self) -> Mapping[str, object]:
        return self.node_rules.told()

    async def reload_rules(self, *, how: str = "reload", by: str = "") -> ReloadResult:
        return await self.node_rules.reload(how=how, by=by)

    # -- figures ----------------------------------------------------------------------------------------

    async def stats(self) -> Mapping[str, object]:
        return await self.figures.stats()

    async def performance(self) -> Mapping[str, object]:
        return await self.figures.performance()

    async def pulse(self, after: int, window: str, *, tables: bool) -> Mapping[str, Any]:
        return await self.figures.pulse(after, window, tables=tables)

    async def metrics(self) -> bytes:
        return await self.figures.metrics()

    async def health(self) -> Mapping[str, PartHealth]:
        return await self.figures.health()

    async def savings(self) -> Mapping[str, Any]:
        return report_of.savings(await self._evidence(), self.node_rules.ruleset)

    async def doctor(self) -> Mapping[str, Any]:
        return report_of.doctor(await self._evidence(), self.node_rules.ruleset)

    async def _evidence(self) -> Any:
        async def ask(member: Member) -> Any:
            return (await member.link.ask("GET", EVIDENCE)).json()

        return report_of.added([told for _, told in await each(self._team, ask)])

    # -- the cache --------------------------------------------------------------------------------------

    async def purge(self, request: PurgeRequest) -> PurgeAnswer:
        body = purge_body(request)

        async def ask(member: Member) -> PurgeAnswer:
            return _purge_answer(
                await member.link.ask("POST", "/api/cache/purge", body=body, patience=PURGE_PATIENCE)
            )

        done = await first(self._team, ask)
        if done is None:
            raise Problem(503, "no worker could be told to purge")
        return done

    async def count(self, request: PurgeRequest) -> PurgeAnswer:
        """A shared store is counted by every worker alike, so that the largest number is nearest; without
        one, each has its own copies."""
        body = purge_body(request)

        async def ask(member: Member) -> PurgeAnswer:
            return _purge_answer(
                await member.link.ask("POST", "/api/cache/purge", body=body, patience=COUNT_PATIENCE)
            )

        counted = [answer for _, answer in await each(self._team, ask)]
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

        return any(shared for _, shared in await each(self._team, ask))

    async def entry(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        told = await self._from_any("GET", "/api/cache/entry", _about(url, headers))
        return None if told is None else {key: each for key, each in told.items() if key != "refused"}

    async def refusal(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        """Of the worker that has met it last."""
        query = _about(url, headers)

        async def ask(member: Member) -> dict[str, Any] | None:
            reply = await member.link.ask("GET", "/api/cache/entry", query=query)
            found: dict[str, Any] | None = reply.json().get("refused")
            return found

        found = [told for _, told in await each(self._team, ask) if told is not None]
        return min(found, key=lambda told: told["age"], default=None)

    async def explain(self, request: ExplainRequest) -> Mapping[str, Any]:
        """By the worker that has had the origin's answer last."""
        query = explain_query.encode(request)

        async def ask(member: Member) -> dict[str, Any]:
            reply = await member.link.ask("GET", "/api/explain", query=query)
            told: dict[str, Any] = reply.json()
            if reply.status == 400:
                raise Refused(str(told.get("detail")))
            if "explanation" not in told:
                raise NoAnswer(f"{reply.status}: {told.get('detail', '')}")
            return told

        found = [told for _, told in await each(self._team, ask)]
        if not found:
            raise Problem(503, "no worker could be asked")
        return min(found, key=_age)

    # -- warm-ups ---------------------------------------------------------------------------------------

    async def warm(self, request: WarmRequest) -> Mapping[str, object]:
        """In the first worker that takes it."""
        body = warm_body.encode(request)

        async def ask(member: Member) -> dict[str, object]:
            reply = await member.link.ask("POST", WARM, body=body)
            told: dict[str, object] = reply.json()
            if reply.status == 202:
                return told
            if reply.status == 400:
                raise Refused(str(told.get("detail")))
            raise Problem(reply.status, str(told.get("detail")))

        begun = await first(self._team, ask)
        if begun is None:
            raise Problem(503, "no worker could be told to warm up")
        return begun

    async def warm_jobs(self) -> Sequence[Mapping[str, object]]:
        async def ask(member: Member) -> list[dict[str, object]]:
            jobs: list[dict[str, object]] = (await member.link.ask("GET", WARM)).json()["jobs"]
            return jobs

        return [job for _, jobs in await each(self._team, ask) for job in jobs]

    async def warm_news(self, job: str, after: int, wait: float) -> Mapping[str, Any] | None:
        query = [("after", str(after)), ("wait", str(wait))]
        return await self._from_any("GET", _job(job), query, wait + PATIENCE)

    async def warm_cancel(self, job: str) -> Mapping[str, object] | None:
        return await self._from_any("DELETE", _job(job))

    async def _from_any(
        self, method: str, path: str, query: Sequence[tuple[str, str]] = (), patience: float = PATIENCE
    ) -> Mapping[str, Any] | None:
        """What the first worker says that has something; None where none has. Raises Refused."""

        async def ask(member: Member) -> dict[str, Any] | None:
            reply = await member.link.ask(method, path, query=query, patience=patience)
            told: dict[str, Any] = reply.json()
            if reply.status == 400:
                raise Refused(str(told.get("detail")))
            return told if reply.status == 200 else None

        return await first(self._team, ask)


def _about(url: str, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("url", url), *(("header", f"{name}: {value}") for name, value in headers)]


def _age(told: Mapping[str, Any]) -> tuple[bool, float]:
    answer = told["explanation"].get("answer", {})
    age: float | None = answer.get("age")
    return answer.get("source") == Source.VARIANT, inf if age is None else age


def _job(name: str) -> str:
    return f"{WARM}/{quote(name, safe='')}"


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
        None if told["number"] is None else int(told["number"]),
        None if objects == "unknown" else objects,
        None if octets == "unknown" else octets,
        told["layers"],
        told.get("nodes", ()),
    )
