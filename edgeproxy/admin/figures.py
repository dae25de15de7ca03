"""Adds up what the workers of a node say of themselves: numbers, latencies, the pulse, health.

Rules of this file:

- A worker that has ended still counts: what it had counted is asked for before it is told to end, and stays
  in every sum. Counters never go back.
- What every worker has counted alike (reloads) is told once, by who has done it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from edgeproxy.admin.control import PartHealth
from edgeproxy.admin.private import LATENCIES, PULSE
from edgeproxy.admin.team import each
from edgeproxy.admin.worker_link import NoAnswer
from edgeproxy.observe import merge, pulse
from edgeproxy.observe.catalogue_parts import NODE, PARTS
from edgeproxy.observe.metrics import derived
from edgeproxy.observe.percentiles import Percentiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeproxy.admin.node_rules import NodeRules
    from edgeproxy.admin.team import Member, Team
    from edgeproxy.clock import Clock

PULSE_PATIENCE = 1.0
HEALTH_PATIENCE = 1.5
"""More than a worker takes to find that a part hangs (health.py)."""
HEALTH_LIMIT = 2.0

MALFORMED = (LookupError, TypeError, ValueError, AttributeError)
"""What Percentiles.absorb raises for what is no dump."""

_LOG = logging.getLogger("edgeproxy.admin")


class Figures:
    """Of all workers together, those that have ended included."""

    def __init__(self, team: Team, rules: NodeRules, clock: Clock) -> None:
        self._team = team
        self._rules = rules
        self._clock = clock
        self._started = clock.monotonic()
        self._ended = merge.Ended()
        self._retired = Percentiles(clock.now)
        self.alerts: Callable[[], Mapping[str, int]] | None = None
        """What is counted of the alerts, where they are watched."""

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

    async def stats(self) -> Mapping[str, object]:
        async def ask(member: Member) -> dict[str, Any]:
            told: dict[str, Any] = (await member.link.ask("GET", "/api/cache/stats")).json()
            return told

        total = merge.merge_stats([told for _, told in await each(self._team, ask)])
        total["uptime_seconds"] = round(self._clock.monotonic() - self._started, 3)
        total["reloads"] = {
            "total": self._rules.reloads,
            "failed": self._rules.failed,
            "last_ok": self._rules.last_ok,
        }
        if self.alerts is not None:
            total["alerts"] = dict(self.alerts())
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
        for member, dump in await each(self._team, ask):
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
        told = pulse.merged([*(one for _, one in await each(self._team, ask)), retired])
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
            ("edgeproxy_config_reload_total", "counter", self._rules.reloads),
            ("edgeproxy_config_reload_failed_total", "counter", self._rules.failed),
            ("edgeproxy_config_last_reload_successful", "gauge", int(self._rules.last_ok)),
            ("edgeproxy_rules", "gauge", len(self._rules.ruleset.rules)),
        ):
            # Every worker has counted the same reload.
            told = total.setdefault(name, merge.Family("", kind))
            told.samples = {name: float(value)}
        watched = {} if self.alerts is None else self.alerts()
        told_here = [(PARTS["alerts", key], number) for key, number in watched.items()]
        for key, number in self._team.numbers().items():
            told_here.append((NODE.get(key) or derived("node", key), number))
        for described, number in told_here:
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

        for member, told in await each(self._team, ask):
            for part, how in told.items():
                said = PartHealth(bool(how.get("ok")), str(how.get("detail", "")))
                if part not in parts or (parts[part].ok and not said.ok):
                    detail = said.detail if said.ok else f"{member.name}: {said.detail}"
                    parts[part] = PartHealth(said.ok, detail)
        return parts
