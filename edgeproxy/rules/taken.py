"""The rules that a worker is under: the set in force, perhaps a candidate beside it, and the matcher of both.

Rules of this file:

- What is wanted is files; what is taken is made of them whole, or RuleError says why not and nothing changes.
- Files that are as they were are not read into rules again. ``mark`` names all of it: workers with one mark
  answer alike.
- A candidate that answers for some keys may bring pools of its own; one that is only compared brings nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeproxy.rules.differences import Differences
from edgeproxy.rules.load import load_bytes, version_of
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.model import RuleSet
from edgeproxy.rules.split import Split

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeproxy.rules.model import Rule
    from edgeproxy.rules.pools import PoolSpec

Files = list[tuple[str, bytes]]
"""Name and octets of each, in order."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """``candidate`` None: there is none. ``percent`` and ``sample`` as in history.Candidate."""

    files: Files
    source: str = ""
    candidate: Files | None = None
    percent: float = 0.0
    sample: int = 0

    @property
    def mark(self) -> str:
        return mark(version_of(self.files), self.candidate, self.percent, self.sample)


def mark(version: str, candidate: Files | None, percent: float, sample: int) -> str:
    """Names rules in force and candidate together; of rules alone it is their version."""
    if candidate is None:
        return version
    return f"{version}+{version_of(candidate)}@{percent:g}/{sample}"


@dataclass(frozen=True, slots=True)
class Taken:
    mark: str
    ruleset: RuleSet
    matcher: Matcher
    candidate: RuleSet | None = None
    percent: float = 0.0
    differences: Differences | None = None

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All that may answer or be compared, those in force first."""
        return (*self.ruleset.rules, *(self.candidate.rules if self.candidate else ()))

    @property
    def pools(self) -> tuple[PoolSpec, ...]:
        """All that may be asked."""
        if self.candidate is None or not self.percent:
            return self.ruleset.pools
        known = {pool.name for pool in self.ruleset.pools}
        return (*self.ruleset.pools, *(p for p in self.candidate.pools if p.name not in known))


NOTHING = Taken("none", RuleSet(), Matcher(RuleSet()))
"""Plain HTTP caching."""


def take(wanted: Wanted, present: Taken, shown: Callable[[str], str] = str) -> Taken:
    """``present`` itself, where it is that already. ``shown`` makes of a target what may be shown of it.
    Raises RuleError. Blocks."""
    if wanted.mark == present.mark:
        return present
    ruleset = _loaded(wanted.files, wanted.source, present)
    if wanted.candidate is None:
        matcher = present.matcher if type(present.matcher) is Matcher and ruleset is present.ruleset else None
        return Taken(wanted.mark, ruleset, matcher or Matcher(ruleset))
    candidate = _loaded(wanted.candidate, "candidate", present)
    differences = Differences(wanted.sample, shown)
    matcher = Split(ruleset, candidate, wanted.percent, differences)
    return Taken(wanted.mark, ruleset, matcher, candidate, wanted.percent, differences)


def _loaded(files: Files, source: str, present: Taken) -> RuleSet:
    version = version_of(files)
    for known in (present.ruleset, present.candidate):
        if known is not None and known.version == version:
            return known if known.source == source else replace(known, source=source)
    return load_bytes(files, source=source)
