"""The rules that all workers of a node are under.

Rules of this file: rules are read and checked here, once, and copied (rules/snapshot.py); all workers are
told to take the copy. Whoever does not is replaced, and its replacement starts with that copy.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from edgeproxy.admin.control import ReloadResult
from edgeproxy.admin.private import DIFFERENCES, RULES
from edgeproxy.admin.rule_keeper import RuleKeeper
from edgeproxy.admin.team import each
from edgeproxy.admin.worker_link import NoAnswer
from edgeproxy.rules.problems import RuleError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgeproxy.admin.team import Member, Team
    from edgeproxy.clock import Clock
    from edgeproxy.rules.model import RuleSet
    from edgeproxy.rules.snapshot import RuleSnapshot

RULES_PATIENCE = 60.0

_LOG = logging.getLogger("edgeproxy.admin")


class NodeRules:
    """``reloads`` and ``failed`` count what was asked for; ``last`` is how the last one went."""

    def __init__(self, team: Team, snapshot: RuleSnapshot, clock: Clock) -> None:
        self._team = team
        self._snapshot = snapshot
        self._clock = clock
        self._reloading = asyncio.Lock()
        self.reloads = self.failed = 0
        self.last: ReloadResult | None = None
        self.life = RuleKeeper(snapshot.in_force, self.reload, self._differing)

    @property
    def ruleset(self) -> RuleSet:
        return self._snapshot.ruleset

    @property
    def last_ok(self) -> bool:
        return self.last is None or not self.last.lines

    def told(self) -> Mapping[str, object]:
        ruleset = self.ruleset
        return {
            "version": ruleset.version,
            "source": ruleset.source,
            "rules": [{"name": r.name, "at": r.at} for r in ruleset.rules],
        }

    def record(self, how: str, by: str = "") -> None:
        """The rules in force are a version, since now. Blocks."""
        snapshot = self._snapshot
        if snapshot.in_force is not None and snapshot.wanted is not None:
            snapshot.in_force.record(snapshot.wanted, snapshot.taken, at=self._clock.now(), how=how, by=by)

    async def reload(self, *, how: str = "reload", by: str = "") -> ReloadResult:
        async with self._reloading:
            before = self.ruleset
            if self._snapshot.source is None:
                return ReloadResult(before.version, 0)
            self.reloads += 1
            try:
                ruleset = await asyncio.to_thread(self._snapshot.take)
            except (RuleError, OSError) as error:
                self.failed += 1
                _LOG.error("rules not reloaded, the old ones go on:\n%s", error)
                lines = tuple(str(error).splitlines())
                self.last = ReloadResult(before.version, len(before.rules), lines)
                return self.last
            members = self._team.ready()
            said = await asyncio.gather(*(self.tell(member) for member in members))
            missing = tuple(why for why in said if why is not None)
            await asyncio.to_thread(self.record, how, by)
            _LOG.info("rules reloaded: %d rules, version %s", len(ruleset.rules), ruleset.version)
            self.last = ReloadResult(ruleset.version, len(ruleset.rules), missing=missing)
            return self.last

    async def tell(self, member: Member) -> str | None:
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

        return [told for _, told in await each(self._team, ask)]
