"""The admin port: what operators and their machines ask of a running proxy.

Rules of this file:

- ROUTES is all there is: path, method, who may, what is done. Reads never change anything.
- The page at / holds no data, so whoever can connect may have it; what it shows it asks for like everybody.
- A handler translates between HTTP and Control and decides nothing else. Answers are JSON, errors RFC 9457.
- /healthz asks nobody. /readyz is 503 while starting or draining, without asking any part, and 200
  otherwise, whatever the parts say.
- Nothing here may be cached, framed or read by another site.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from math import ceil
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edgeproxy import __version__
from edgeproxy.admin import explain_query, page, purge_body, rule_life
from edgeproxy.admin.attempts import Attempts
from edgeproxy.admin.audit import DETAIL, Audit
from edgeproxy.admin.control import PurgeRequest, State
from edgeproxy.admin.health import LIMIT, HealthBoard, word
from edgeproxy.admin.live import Live
from edgeproxy.admin.problem import Problem, problems, to_json
from edgeproxy.admin.rule_life import RuleLifeApi
from edgeproxy.admin.warm_api import WarmApi
from edgeproxy.clock import Clock
from edgeproxy.engine.background import Background
from edgeproxy.engine.gates import Buckets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from edgeproxy.admin.auth import Auth
    from edgeproxy.admin.control import Control, PurgeAnswer
    from edgeproxy.rules.model import RateLimit

LARGEST_BODY = 64 * 1024
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LIVE = web.AppKey("live", Live)

_FIELDS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Access(Enum):
    """Who may."""

    PROBE = "anyone"
    PAGE = "anyone, with a browser"
    READ = "readers"
    WRITE = "writers"


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    access: Access
    handle: Callable[[AdminApi, web.Request], Awaitable[web.StreamResponse]]
    says: str


class AdminApi:
    """The handlers. One object for each application."""

    def __init__(
        self,
        control: Control,
        clock: Clock,
        live: Live,
        limit: float = LIMIT,
        purges: RateLimit | None = None,
    ) -> None:
        self._control = control
        self._live = live
        self._clock = clock
        self._purges = purges
        self._buckets = Buckets(2)
        self.changes = Audit(clock)
        self._health = HealthBoard(control, clock, limit)
        self._reloading = asyncio.Lock()
        self._warm = WarmApi(control)
        self._life = RuleLifeApi(control.rule_life)

    async def front(self, request: web.Request) -> web.Response:
        return page.answer(page.INDEX) if page.wanted(request) else await self.index(request)

    async def page(self, request: web.Request) -> web.Response:
        return page.answer(request.match_info["name"])

    async def index(self, _: web.Request) -> web.Response:
        return _json(
            {"edgeproxy": __version__, "endpoints": [f"{r.method} {r.path}: {r.says}" for r in ROUTES]}
        )

    async def alive(self, _: web.Request) -> web.Response:
        return _json({"status": "alive"})

    async def ready(self, _: web.Request) -> web.Response:
        state = self._control.state
        if state is not State.READY:
            return _json({"status": state}, status=503)
        parts = await self._health.parts()
        state = self._control.state  # a drain may have begun while the parts were asked
        if state is not State.READY:
            return _json({"status": state}, status=503)
        # No details: this one is open to everybody who can connect.
        told = {name: "ok" if part.ok else "failing" for name, part in parts.items()}
        return _json({"status": "ready" if word(parts) == "ok" else "degraded", "parts": told})

    async def health(self, _: web.Request) -> web.Response:
        parts = await self._health.parts()
        told = {name: {"ok": part.ok, "detail": part.detail} for name, part in parts.items()}
        return _json(
            {
                "status": word(parts),
                "state": self._control.state,
                "version": __version__,
                "parts": told,
                "last_reload": self._last_reload(),
            }
        )

    async def metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._control.metrics(), headers={"Content-Type": METRICS_TYPE})

    async def stats(self, _: web.Request) -> web.Response:
        return _json(await self._control.stats())

    async def performance(self, _: web.Request) -> web.Response:
        return _json(await self._control.performance())

    async def live(self, request: web.Request) -> web.StreamResponse:
        return await self._live.once(request)

    async def events(self, request: web.Request) -> web.StreamResponse:
        return await self._live.events(request)

    async def explain(self, request: web.Request) -> web.Response:
        wanted = explain_query.decode(request.query)
        told = await self._control.explain(wanted)
        return _json(
            {
                **told,
                "entry": await self._control.entry(wanted.url, wanted.headers),
                "refused": await self._control.refusal(wanted.url, wanted.headers),
            }
        )

    async def rules(self, _: web.Request) -> web.Response:
        unkept = self._control.rule_life.unkept
        told = {**await self._control.rules(), "last_reload": self._last_reload()}
        return _json({**told, "unkept": unkept} if unkept else told)

    def _last_reload(self) -> dict[str, object] | None:
        last = self._control.last_reload
        return None if last is None else {"result": "error" if last.lines else "ok", "lines": last.lines}

    async def reload(self, request: web.Request) -> web.Response:
        said = rule_life.decode(await request.read(), rule_life.Reload)
        async with self._reloading:
            result = await self._control.reload_rules(by=said.by)
        return rule_life.answer(result, held=await self._control.rule_life.held())

    async def rule_versions(self, request: web.Request) -> web.StreamResponse:
        return await self._life.history(request)

    async def rollback(self, request: web.Request) -> web.StreamResponse:
        return await self._life.rollback(request)

    async def shadow(self, request: web.Request) -> web.StreamResponse:
        return await self._life.shadow(request)

    async def differences(self, request: web.Request) -> web.StreamResponse:
        return await self._life.differences(request)

    async def promote(self, request: web.Request) -> web.StreamResponse:
        return await self._life.promote(request)

    async def replace_workers(self, _: web.Request) -> web.Response:
        replaced = await self._control.replace_workers()
        if replaced.why_not:
            raise Problem(
                422, f"given up, the old workers go on: {replaced.why_not}", replaced=replaced.count
            )
        return _json({"replaced": replaced.count})

    async def entry(self, request: web.Request) -> web.Response:
        url = request.query.get("url", "")
        if not url:
            raise Problem(400, "expected ?url=URL, and optionally &header=Name:%20value, repeated")
        headers: list[tuple[str, str]] = []
        for line in request.query.getall("header", ()):
            name, colon, value = line.partition(":")
            if not colon or not name.strip():
                raise Problem(400, "expected header=Name:%20value")
            headers.append((name.strip(), value.strip()))
        found, refused = await self._control.entry(url, headers), await self._control.refusal(url, headers)
        if found is None:
            raise Problem(
                404,
                "nothing is stored for this URL and these headers; give the URL as clients use it, with its "
                "host, such as http://api.example/items/1",
                url=url,
                refused=refused,
            )
        return _json({**found, "refused": refused})

    async def savings(self, _: web.Request) -> web.Response:
        return _json(await self._control.savings())

    async def doctor(self, _: web.Request) -> web.Response:
        return _json(await self._control.doctor())

    async def alerts(self, _: web.Request) -> web.Response:
        watch = self._control.alerts
        return _json({"watching": False} if watch is None else watch.told())

    async def try_receivers(self, _: web.Request) -> web.Response:
        watch = self._control.alerts
        if watch is None:
            raise Problem(409, "nobody watches for alerts here: serve --alerts FILE")
        return _json({"receivers": list(await watch.trial())})

    async def purge(self, request: web.Request) -> web.Response:
        wanted = purge_body.decode(await request.read())
        if wanted.dry_run:
            return _json(_receipt(wanted, await self._control.count(wanted)))
        asked = {"kind": wanted.kind, "value": wanted.value, "soft": wanted.soft}
        request[DETAIL] = asked
        self._mind_the_rate()
        answer = await self._control.purge(wanted)
        request[DETAIL] = {
            **asked,
            "number": _text(answer.number),
            "objects": answer.objects,
            "layers": answer.layers,
        }
        return _json(_receipt(wanted, answer), status=answer.status)

    def _mind_the_rate(self) -> None:
        if self._purges is not None:
            wait = self._buckets.wait("purge", "", self._purges, self._clock.monotonic(), take=True)
            if wait:
                raise Problem(
                    429, "too many purges in a short time (--purge-rate)", {"Retry-After": str(ceil(wait))}
                )

    async def audit(self, _: web.Request) -> web.Response:
        return _json({"changes": self.changes.last()})

    async def warm(self, request: web.Request) -> web.StreamResponse:
        return await self._warm.begin(request)

    async def warm_jobs(self, request: web.Request) -> web.StreamResponse:
        return await self._warm.jobs(request)

    async def warm_job(self, request: web.Request) -> web.StreamResponse:
        return await self._warm.job(request)

    async def warm_cancel(self, request: web.Request) -> web.StreamResponse:
        return await self._warm.cancel(request)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/", Access.PAGE, AdminApi.front, "the page, for browsers; for others this list"),
    Route("GET", "/page/{name}", Access.PROBE, AdminApi.page, "what the page is made of"),
    Route("GET", "/api", Access.READ, AdminApi.index, "this list"),
    Route("GET", "/api/live", Access.READ, AdminApi.live, "all that the page shows"),
    Route("GET", "/api/events", Access.READ, AdminApi.events, "the same, as server-sent events"),
    Route("GET", "/api/explain", Access.READ, AdminApi.explain, "what would become of ?url=, and why"),
    Route("GET", "/healthz", Access.PROBE, AdminApi.alive, "alive"),
    Route("GET", "/readyz", Access.PROBE, AdminApi.ready, "ready for traffic, or 503"),
    Route("GET", "/metrics", Access.READ, AdminApi.metrics, "the numbers, for Prometheus"),
    Route("GET", "/api/health", Access.READ, AdminApi.health, "the parts and how they are"),
    Route("GET", "/api/cache/stats", Access.READ, AdminApi.stats, "the numbers, as JSON"),
    Route("GET", "/api/cache/status", Access.READ, AdminApi.stats, "the same"),
    Route("GET", "/api/cache/entry", Access.READ, AdminApi.entry, "what is stored for ?url="),
    Route(
        "POST", "/api/cache/purge", Access.WRITE, AdminApi.purge, "purge by url, tag, prefix, pattern or all"
    ),
    Route("POST", "/api/cache/warm", Access.WRITE, AdminApi.warm, "warm urls, a sitemap or the most_wanted"),
    Route("GET", "/api/cache/warm", Access.READ, AdminApi.warm_jobs, "the warm-ups"),
    Route("GET", "/api/cache/warm/{job}", Access.READ, AdminApi.warm_job, "one, with its results"),
    Route("DELETE", "/api/cache/warm/{job}", Access.WRITE, AdminApi.warm_cancel, "stop one"),
    Route("GET", "/api/rules", Access.READ, AdminApi.rules, "the rules in force"),
    Route("POST", "/api/rules/reload", Access.WRITE, AdminApi.reload, "read the rule files again"),
    Route("GET", "/api/rules/history", Access.READ, AdminApi.rule_versions, "the versions they had"),
    Route("POST", "/api/rules/rollback", Access.WRITE, AdminApi.rollback, "bring one back"),
    Route("PUT", "/api/rules/shadow", Access.WRITE, AdminApi.shadow, "compare others, on live traffic"),
    Route("GET", "/api/rules/shadow", Access.READ, AdminApi.differences, "what these decide otherwise"),
    Route("POST", "/api/rules/promote", Access.WRITE, AdminApi.promote, "answer a share of the keys by them"),
    Route("GET", "/api/audit", Access.READ, AdminApi.audit, "the last changes: who, what, when"),
    Route("GET", "/api/savings", Access.READ, AdminApi.savings, "what each rule has earned"),
    Route("GET", "/api/doctor", Access.READ, AdminApi.doctor, "what splits the cache for nothing"),
    Route("GET", "/api/alerts", Access.READ, AdminApi.alerts, "what fires, and who was told"),
    Route("POST", "/api/alerts/test", Access.WRITE, AdminApi.try_receivers, "tell every receiver, as a test"),
    Route(
        "POST",
        "/api/workers/replace",
        Access.WRITE,
        AdminApi.replace_workers,
        "new workers, one at a time, with the settings read again",
    ),
    Route("GET", "/api/performance", Access.READ, AdminApi.performance, "latency percentiles by rule"),
    Route("GET", "/api/performance/metrics", Access.READ, AdminApi.performance, "the same"),
)


def make_admin(
    control: Control,
    auth: Auth | None,
    clock: Clock | None = None,
    *,
    limit: float = LIMIT,
    background: Background | None = None,
    purges: RateLimit | None = None,
) -> web.Application:
    """The application of one admin listener. Run it with ``access_log=None``. ``auth`` None: whoever can
    connect may do everything. ``limit``: seconds that a check of the parts may take. ``background``: whose
    end ends what runs for listeners. ``purges``: how many there may be."""
    clock = clock or Clock()
    live = Live(control, clock, (background or Background()).spawn)
    api = AdminApi(control, clock, live, limit, purges)
    attempts = Attempts(clock)
    app = web.Application(middlewares=[problems], client_max_size=LARGEST_BODY)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _guarded(api, auth, route, attempts))
        if route.method == "GET":
            app.router.add_route("HEAD", route.path, _guarded(api, auth, route, attempts))
    app.on_response_prepare.append(_add_fields)

    app[LIVE] = live

    async def let_go(_: web.Application) -> None:
        live.close()

    app.on_shutdown.append(let_go)
    return app


def _guarded(
    api: AdminApi, auth: Auth | None, route: Route, attempts: Attempts
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    check = None
    if auth is not None:
        checks = {
            Access.PROBE: None,
            Access.PAGE: lambda request: None if page.wanted(request) else auth.check_read(request),
            Access.READ: auth.check_read,
            Access.WRITE: auth.check_write,
        }
        check = checks[route.access]

    async def handle(request: web.Request) -> web.StreamResponse:
        if check is not None:
            attempts.check(request, check)
        return await route.handle(api, request)

    async def told(request: web.Request) -> web.StreamResponse:
        return await api.changes.told(request, handle(request))

    # What the parent asks of its workers it has told itself.
    return told if route.access is Access.WRITE and auth is not None else handle


async def _add_fields(_: web.BaseRequest, response: web.StreamResponse) -> None:
    for name, value in _FIELDS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "edgeproxy"  # aiohttp has named itself and Python with their versions


def _json(body: Mapping[str, object], status: int = 200) -> web.Response:
    return web.Response(body=to_json(body), status=status, content_type="application/json")


def _receipt(wanted: PurgeRequest, answer: PurgeAnswer) -> dict[str, object]:
    return {
        "number": _text(answer.number),
        "kind": wanted.kind,
        "value": wanted.value,
        "soft": wanted.soft,
        "dry_run": wanted.dry_run,
        "objects": "unknown" if answer.objects is None else answer.objects,
        "bytes": "unknown" if answer.bytes is None else answer.bytes,
        "layers": dict(answer.layers),
        **({"nodes": [_told(node) for node in answer.nodes]} if answer.nodes else {}),
    }


def _told(node: Mapping[str, Any]) -> dict[str, object]:
    return {**node, "number": _text(node["number"])}


def _text(number: int | None) -> str | None:
    """A purge's number. Those of a log of many nodes have 19 digits, of which a double, and so JavaScript and
    jq, keeps 16 (RFC 8259 §6)."""
    return None if number is None else str(number)
