"""A small Control that remembers what it was asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from edgeproxy.admin.control import (
    Alerts,
    ExplainRequest,
    PartHealth,
    PurgeAnswer,
    PurgeRequest,
    Refused,
    ReloadResult,
    Replaced,
    State,
    WarmRequest,
)
from edgeproxy.observe import pulse
from edgeproxy.observe.percentiles import Percentiles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SmallRuleLife:
    """Remembers what it was asked, and says what it is told to."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.result = ReloadResult("v2", 4)
        self.why_held = ""
        self.unkept = ""
        self.told: Mapping[str, Any] = {"versions": []}
        self.differs: Mapping[str, Any] = {"compared": 0, "differing": 0, "pairs": []}

    async def history(self) -> Mapping[str, Any]:
        return self.told

    async def held(self) -> str:
        return self.why_held

    async def candidate(self) -> Mapping[str, Any] | None:
        return None

    async def rollback(self, to: str, by: str) -> ReloadResult:
        self.done.append(("rollback", to, by))
        return self.result

    async def shadow(self, files: list[tuple[str, bytes]], sample: int, by: str) -> ReloadResult:
        self.done.append(("shadow", files, sample, by))
        return self.result

    async def promote(self, percent: float, by: str) -> ReloadResult:
        self.done.append(("promote", percent, by))
        return self.result

    async def differences(self) -> Mapping[str, Any]:
        return self.differs


class SmallControl:
    def __init__(self) -> None:
        self.state = State.READY
        self.parts: dict[str, PartHealth] = {"store": PartHealth(ok=True), "origin": PartHealth(ok=True)}
        self.checks = 0
        self.asking = asyncio.Event()
        """Set once the parts are asked."""
        self.gate: asyncio.Event | None = None
        """While set up and not open, checks of the parts hang."""
        self.fault: Exception | None = None
        self.purged: list[PurgeRequest] = []
        self.counted: list[PurgeRequest] = []
        self.layers: dict[str, str] = {"l1": "ok", "l2": "ok"}
        self.objects: int | None = 3
        self.octets: int | None = None
        """Of a dry run."""
        self.warmed: list[WarmRequest] = []
        self.cancelled: list[str] = []
        self.waits: list[float] = []
        self.exposition = b"edgeproxy_requests_total 1\n"
        self.gate_all = asyncio.Event()
        """While closed, questions about entries hang."""
        self.gate_all.set()
        self.refused: Mapping[str, object] | None = None
        self.saved: Mapping[str, Any] = {"rules": {}}
        self.found: Mapping[str, Any] = {"findings": []}
        self.reloads = 0
        self.reloaded_by: list[tuple[str, str]] = []
        self.rule_life = SmallRuleLife()
        self.alerts: Alerts | None = None
        self.last_reload: ReloadResult | None = None
        self.errors: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.asked: list[tuple[str, list[tuple[str, str]]]] = []
        self.stored: Mapping[str, object] | None = {"status": 200, "age": 7}
        self.percentiles = Percentiles(lambda: 1_700_000_000.0)
        self.explained: list[ExplainRequest] = []
        self.explanation: Mapping[str, Any] = {"explanation": {}, "text": "rule pitches"}
        self.numbers: Mapping[str, object] = {"requests": 12}

    async def health(self) -> Mapping[str, PartHealth]:
        self.checks += 1
        self.asking.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return dict(self.parts)

    async def rules(self) -> Mapping[str, object]:
        return {"version": "v1", "rules": [{"name": "pitches", "at": "a.yaml:2"}]}

    async def reload_rules(self, *, how: str = "reload", by: str = "") -> ReloadResult:
        self.reloaded_by.append((how, by))
        self.reloads += 1
        self.last_reload = ReloadResult("v1" if self.errors else "v2", 4, self.errors, self.missing)
        return self.last_reload

    async def replace_workers(self) -> Replaced:
        return Replaced(1, self.errors[0] if self.errors else "")

    async def purge(self, request: PurgeRequest) -> PurgeAnswer:
        if request.value == "relative":
            raise Refused("a URL to purge begins with http:// or /")
        self.purged.append(request)
        return PurgeAnswer(len(self.purged), self.objects, 3000, self.layers)

    async def count(self, request: PurgeRequest) -> PurgeAnswer:
        self.counted.append(request)
        return PurgeAnswer(None, self.objects, self.octets, self.layers)

    async def entry(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        self.asked.append((url, list(headers)))
        await self.gate_all.wait()
        return self.stored

    async def refusal(self, url: str, headers: Sequence[tuple[str, str]]) -> Mapping[str, object] | None:
        self.asked.append((url, list(headers)))
        return self.refused

    async def savings(self) -> Mapping[str, Any]:
        return self.saved

    async def doctor(self) -> Mapping[str, Any]:
        return self.found

    async def warm(self, request: WarmRequest) -> Mapping[str, object]:
        if not request.most_wanted and not request.sitemap and "refused" in request.urls[0]:
            raise Refused("expected a URL")
        self.warmed.append(request)
        return {"id": "w1", "state": "running"}

    async def warm_jobs(self) -> Sequence[Mapping[str, object]]:
        return [{"id": "w1"}] if self.warmed else []

    async def warm_news(self, job: str, after: int, wait: float) -> Mapping[str, Any] | None:
        self.waits.append(wait)
        if job != "w1":
            return None
        urls = self.warmed[-1].urls
        results: list[dict[str, Any]] = [
            {"url": url, "result": "stored", "bytes": 1536, "seconds": 0.012} for url in urls
        ]
        if len(results) > 1:
            failed = {"result": "failed", "status": 503, "reason": "server-error", "bytes": 0, "seconds": 0}
            results[-1] = {"url": urls[-1], **failed}
        counts = {word: sum(r["result"] == word for r in results) for word in ("stored", "failed")}
        done = after + 1 >= len(results)
        return {
            "id": job, "state": "done" if done else "running", "total": len(results), "done": len(results),
            "results": counts, "news": results[after : after + 1],
        }  # fmt: skip

    async def warm_cancel(self, job: str) -> Mapping[str, object] | None:
        self.cancelled.append(job)
        return {"id": job, "state": "cancelled"} if job == "w1" else None

    async def stats(self) -> Mapping[str, object]:
        if self.fault is not None:
            raise self.fault
        return self.numbers

    async def pulse(self, after: int, window: str, *, tables: bool) -> Mapping[str, Any]:
        told = await pulse.gather(self.percentiles, after, window, tables=tables)
        if not tables:
            return told
        return told | {
            "wanted": [["http://h/1", "pitches", 2.0]],
            "troubles": [],
            "facts": {"uptime_seconds": 5.0, "connections": 1},
        }

    async def explain(self, request: ExplainRequest) -> Mapping[str, Any]:
        if "refused" in request.url:
            raise Refused("expected a path")
        self.explained.append(request)
        return self.explanation

    async def performance(self) -> Mapping[str, object]:
        return {"unit": "seconds"}

    async def metrics(self) -> bytes:
        return self.exposition
