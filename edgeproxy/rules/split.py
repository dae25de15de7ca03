"""Two rule sets on one stream of requests: the one in force, and a candidate that is tried beside it.

Rules of this file:

- ``percent`` of the keys are answered under the candidate. Which ones hangs on the key's digest alone, under
  the rules in force: a key stays on its side, in every worker and node, and with a higher percentage more
  come over and none goes back.
- With 0 percent nothing is changed: it is a shadow.
- What is counted of differences is differences.py's; a purge by URL reaches what either has stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final
from zlib import crc32

from edgeproxy.key import build_key
from edgeproxy.rules.match import Matcher

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.differences import Differences
    from edgeproxy.rules.model import Matched, RuleSet

_WHOLE = 10_000


@final
class Split(Matcher):
    """A Matcher for ``present`` and ``candidate`` together; ``ruleset`` is the present one."""

    def __init__(
        self, present: RuleSet, candidate: RuleSet, percent: float, differences: Differences
    ) -> None:
        super().__init__(present)
        self.candidate = Matcher(candidate)
        self.differences = differences
        self._below = round(percent * _WHOLE / 100)

    def match(self, request: RequestHead) -> Matched:
        """The rule that answers for the request."""
        present = super().match(request)
        differences = self.differences
        differences.left -= 1
        if differences.left < 0:
            candidate = self.candidate.match(request)
            differences.look(request, present, candidate)
            return candidate if self._below and self._comes_over(request, present) else present
        if self._below and self._comes_over(request, present):
            return self.candidate.match(request)
        return present

    def candidates(self, host: str | None, path: str) -> list[Matched]:
        """Of both."""
        return [*super().candidates(host, path), *self.candidate.candidates(host, path)]

    def _comes_over(self, request: RequestHead, present: Matched) -> bool:
        primary = build_key(request, present.rule.key).primary
        return crc32(primary.encode("utf-8", "surrogatepass")) % _WHOLE < self._below
