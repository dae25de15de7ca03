"""What a second rule set would do otherwise with the requests that come: counted, with samples.

Rules of this file:

- ``left`` is counted down by whoever matches a request; below zero the next one is compared, and the count
  begins anew. So one in ``every`` is, and the others cost one subtraction.
- The comparison is that of ``edgeproxy diff`` (compare.py), for the very request.
- Bounded: MOST_PAIRS pairs of rules, MOST_CHANGES changes and MOST_SAMPLES URLs for each. ``shown`` makes of
  a target what may be shown of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeproxy.rules.compare import FIELDS, changes_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.compare import Change
    from edgeproxy.rules.model import Matched

MOST_PAIRS = 200
MOST_CHANGES = 20
MOST_SAMPLES = 5
EVERY = 10
"""One request in so many is compared."""


@dataclass(slots=True)
class _Pair:
    old: tuple[str, str]
    new: tuple[str, str]
    requests: int = 0
    changes: Counter[Change] = field(default_factory=Counter)
    samples: dict[str, None] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        return {
            "old": {"name": self.old[0], "at": self.old[1]},
            "new": {"name": self.new[0], "at": self.new[1]},
            "requests": self.requests,
            "changes": [
                {"field": c.field, "old": c.old, "new": c.new, "requests": n}
                for c, n in self.changes.most_common()
            ],
            "samples": list(self.samples),
        }


class Differences:
    """Since it was made."""

    def __init__(self, every: int = EVERY, shown: Callable[[str], str] = str) -> None:
        self.every = every
        self.left = 0
        self.compared = 0
        self.differing = 0
        self._shown = shown
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._alike: set[tuple[str, str]] = set()
        """Pairs of rules that say the same of everything: nothing can differ for any request."""

    def look(self, request: RequestHead, old: Matched, new: Matched) -> None:
        """Compare what comes of the request under either rule."""
        self.left = self.every - 1
        self.compared += 1
        pair = (old.rule.name, new.rule.name)
        if pair in self._alike:
            return
        changes = changes_for(old, new, request)
        if not changes:
            if not old.parts and not new.parts and all(f.of(old.rule) == f.of(new.rule) for f in FIELDS):
                self._alike.add(pair)
            return
        self.differing += 1
        found = self._pairs.get(pair)
        if found is None:
            if len(self._pairs) >= MOST_PAIRS:
                return
            found = self._pairs[pair] = _Pair((old.rule.name, old.rule.at), (new.rule.name, new.rule.at))
        found.requests += 1
        for change in changes:
            if change in found.changes or len(found.changes) < MOST_CHANGES:
                found.changes[change] += 1
        if len(found.samples) < MOST_SAMPLES:
            found.samples[f"{request.method} {request.host}{self._shown(request.target)}"] = None

    def told(self) -> dict[str, Any]:
        """Plain data."""
        pairs = sorted(self._pairs.values(), key=lambda pair: -pair.requests)
        return {
            "compared": self.compared,
            "differing": self.differing,
            "pairs": [pair.told() for pair in pairs],
        }


def together(tolds: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What several workers tell, as if one had seen it all."""
    compared = differing = 0
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for told in tolds:
        compared += told["compared"]
        differing += told["differing"]
        for pair in told["pairs"]:
            key = (pair["old"]["name"], pair["new"]["name"])
            before = pairs.get(key)
            if before is None:
                pairs[key] = dict(pair)
                continue
            before["requests"] += pair["requests"]
            counts = {(c["field"], c["old"], c["new"]): dict(c) for c in before["changes"]}
            for change in pair["changes"]:
                name = (change["field"], change["old"], change["new"])
                if name in counts:
                    counts[name]["requests"] += change["requests"]
                else:
                    counts[name] = dict(change)
            before["changes"] = sorted(counts.values(), key=lambda c: -c["requests"])[:MOST_CHANGES]
            before["samples"] = list(dict.fromkeys([*before["samples"], *pair["samples"]]))[:MOST_SAMPLES]
    return {
        "compared": compared,
        "differing": differing,
        "pairs": sorted(pairs.values(), key=lambda pair: -pair["requests"]),
    }
