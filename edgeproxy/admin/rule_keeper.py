"""Keeps the history of the rules and what is tried beside them, for one node (rule_life.py, RuleLife).

Rules of this file:

- Each change is written down first and then made by ``apply``, which reads what is written down and has every
  worker take it, or none: a restart at any moment comes up with one or the other. What is refused is undone.
- A version that is brought back holds until the files are edited: reading the same files again, or starting
  again, must not bring back what was taken out.
- One change at a time.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from edgeproxy.admin.control import Refused, ReloadResult
from edgeproxy.admin.problem import Problem
from edgeproxy.engine.aside import aside
from edgeproxy.rules.compare import pool_changes
from edgeproxy.rules.differences import EVERY, together
from edgeproxy.rules.history import Candidate, Unknown, held_text
from edgeproxy.rules.load import load_bytes
from edgeproxy.rules.problems import RuleError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from edgeproxy.rules.history import InForce, RuleHistory
    from edgeproxy.rules.taken import Files

log = logging.getLogger("edgeproxy")


class Apply(Protocol):
    def __call__(self, *, how: str, by: str) -> Awaitable[ReloadResult]: ...


class RuleKeeper:
    """``in_force`` None: there are no rule files. ``differing`` asks each worker what it has seen differ."""

    def __init__(
        self,
        in_force: InForce | None,
        apply: Apply,
        differing: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]],
    ) -> None:
        self._in_force = in_force
        self._apply = apply
        self._differing = differing
        self._changing = asyncio.Lock()

    async def history(self) -> Mapping[str, Any]:
        history = self._history()
        held, candidate, versions = history.held, history.candidate, history.versions
        return {
            "versions": [
                {
                    "number": v.number, "version": v.version, "at": v.at, "how": v.how, "by": v.by,
                    "rules": v.rules, "source": v.source, "in_force": v is versions[-1],
                }
                for v in versions
            ],
            "held": None if held is None else {"version": held.version, "instead_of": held.instead_of},
            "candidate": None if candidate is None else _told(candidate),
        }  # fmt: skip

    async def held(self) -> str:
        history = None if self._in_force is None else self._in_force.history
        return "" if history is None or history.held is None else held_text(history.held)

    async def candidate(self) -> Mapping[str, Any] | None:
        candidate = self._history().candidate
        return None if candidate is None else _told(candidate)

    async def rollback(self, to: str, by: str) -> ReloadResult:
        async with self._changing:
            history = self._history()
            if history.candidate is not None and not to:
                return await self._try_out(None, "rollback", by)
            try:
                version = history.find(to).version
                files = await aside(partial(history.files, version))
            except Unknown as error:
                raise Refused(str(error)) from None
            wrong = await aside(partial(_wrong, files))
            if wrong is not None:
                return self._refused(wrong)
            return await self._hold(version, "rollback", by)

    async def shadow(self, files: Files, sample: int, by: str) -> ReloadResult:
        async with self._changing:
            history = self._history()
            wrong = await aside(partial(_wrong, files))
            if wrong is not None:
                return self._refused(wrong)
            version = await aside(partial(history.keep_files, files))
            return await self._try_out(Candidate(version, 0.0, sample, by), "shadow", by)

    async def promote(self, percent: float, by: str) -> ReloadResult:
        async with self._changing:
            history = self._history()
            candidate = history.candidate
            if candidate is None:
                raise Refused("no rules are tried; begin with a shadow")
            await self._check_pools(history, candidate, percent)
            if percent < 100:
                more = Candidate(candidate.version, percent, candidate.sample, candidate.source)
                return await self._try_out(more, "promote", by)
            return await self._hold(candidate.version, "promote", by)

    async def differences(self) -> Mapping[str, Any]:
        candidate = self._history().candidate
        if candidate is None:
            raise Refused("no rules are tried; begin with a shadow")
        return {"candidate": _told(candidate), **together(await self._differing())}

    # -- small parts ------------------------------------------------------------------------------------

    def _history(self) -> RuleHistory:
        """Raises Problem."""
        if self._in_force is None or self._in_force.history is None:
            raise Problem(409, self.unkept)
        return self._in_force.history

    @property
    def unkept(self) -> str:
        if self._in_force is None:
            return "there are no rule files (--rules none)"
        if self._in_force.history is None:
            return "no versions are kept: --rule-history is 0, or --cache-dir cannot be written to"
        return ""

    async def _hold(self, version: str, how: str, by: str) -> ReloadResult:
        """Have a version in force; nothing is tried any more."""
        in_force, history = self._in_force, self._history()
        assert in_force is not None  # noqa: S101
        held, candidate = history.held, history.candidate
        try:
            await aside(partial(in_force.hold, version))
        except RuleError as error:
            return self._refused(error)
        await aside(partial(history.try_out, None))
        result = await self._apply(how=how, by=by)
        if result.errors:
            await aside(partial(history.hold, held))
            await aside(partial(history.try_out, candidate))
        else:
            log.info("%s: rules version %s in force%s", how, version, f", by {by}" if by else "")
        return result

    async def _try_out(self, candidate: Candidate | None, how: str, by: str) -> ReloadResult:
        history = self._history()
        before = history.candidate
        await aside(partial(history.try_out, candidate))
        result = await self._apply(how=how, by=by)
        if result.errors:
            await aside(partial(history.try_out, before))
        elif candidate is None:
            log.info("%s: rules are tried no more%s", how, f", by {by}" if by else "")
        else:
            log.info(
                "%s: rules version %s answer for %g %% of the keys%s",
                how, candidate.version, candidate.percent, f", by {by}" if by else "",
            )  # fmt: skip
        return result

    async def _check_pools(self, history: RuleHistory, candidate: Candidate, percent: float) -> None:
        """A pool is one for all keys: where it changes, a share of the keys cannot try that."""
        if not 0 < percent < 100:
            return
        assert self._in_force is not None  # noqa: S101
        try:
            new = await aside(partial(_made, history.files(candidate.version)))
            old = await aside(partial(_made, self._in_force.wanted().files))
        except (Unknown, RuleError) as error:
            raise Refused(str(error)) from None
        names = {pool.name for pool in old.pools} & {pool.name for pool in new.pools}
        changed = sorted(names & pool_changes(old, new).keys())
        if changed:
            raise Refused(
                f"pools.{changed[0]} differs, and a pool is the same for all keys: promote 100, or reload"
            )

    def _refused(self, error: Exception) -> ReloadResult:
        versions = self._history().versions
        version, rules = (versions[-1].version, versions[-1].rules) if versions else ("none", 0)
        return ReloadResult(version, rules, tuple(str(error).splitlines()))


def _told(candidate: Candidate) -> dict[str, Any]:
    return {
        "version": candidate.version,
        "percent": candidate.percent,
        "sample": candidate.sample or EVERY,
        "by": candidate.source,
    }


_made = partial(load_bytes, source="candidate")


def _wrong(files: Files) -> RuleError | None:
    try:
        load_bytes(files, source="candidate")
    except RuleError as error:
        return error
    return None
