"""What one worker answers on its private socket: the admin application, open, and what only the parent asks.

Rules of this file: the socket is in a directory that only we can open, so nothing here asks for a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from aiohttp import web

from edgeproxy.admin.api import make_admin
from edgeproxy.admin.control import Control, ReloadResult
from edgeproxy.admin.problem import Problem, to_json
from edgeproxy.rules.history import Order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.clock import Clock

LATENCIES = "/worker/latencies"
PULSE = "/worker/pulse"
RULES = "/worker/rules"
DIFFERENCES = "/worker/differences"
EVIDENCE = "/worker/evidence"


class WorkerControl(Control, Protocol):
    async def latencies(self, *, recent: bool = False) -> Mapping[str, object]:
        """Percentiles.dump()."""

    async def differing(self) -> Mapping[str, object]:
        """Differences.told(), of the rules that are tried."""

    async def evidence(self) -> Mapping[str, Any]:
        """What rules have earned, to be added up (earned/report.py)."""

    async def take_rules(self, order: Order) -> ReloadResult:
        """Be under these rules from now on. ``version`` of the result is their mark (rules/taken.py)."""


class RulesOrder(msgspec.Struct, forbid_unknown_fields=True):
    """Take over the rules in this directory, and those that are tried beside them ("": none)."""

    directory: str
    candidate: str = ""
    percent: float = 0.0
    sample: int = 0


def make_private(control: WorkerControl, clock: Clock) -> web.Application:
    """The application of a worker's own socket."""

    async def latencies(request: web.Request) -> web.Response:
        told = await control.latencies(recent="recent" in request.query)
        return web.Response(body=to_json(told), content_type="application/json")

    async def evidence(_: web.Request) -> web.Response:
        return web.Response(body=to_json(await control.evidence()), content_type="application/json")

    async def differences(_: web.Request) -> web.Response:
        return web.Response(body=to_json(await control.differing()), content_type="application/json")

    async def pulse(request: web.Request) -> web.Response:
        asked = request.query
        told = await control.pulse(int(asked["after"]), asked["window"], tables=asked["tables"] == "yes")
        return web.Response(body=to_json(told), content_type="application/json")

    async def rules(request: web.Request) -> web.Response:
        try:
            order = msgspec.json.decode(await request.read(), type=RulesOrder)
        except msgspec.DecodeError as error:
            raise Problem(400, str(error)) from None
        candidate = Path(order.candidate) if order.candidate else None
        result = await control.take_rules(
            Order(Path(order.directory), candidate, order.percent, order.sample)
        )
        told = {"version": result.version, "rules": result.rules, "errors": list(result.errors)}
        return web.Response(body=to_json(told), content_type="application/json")

    app = make_admin(control, None, clock)
    app.router.add_get(LATENCIES, latencies)
    app.router.add_get(EVIDENCE, evidence)
    app.router.add_get(DIFFERENCES, differences)
    app.router.add_get(PULSE, pulse)
    app.router.add_post(RULES, rules)
    return app
