"""A request that the cache may answer: the exchange, its rule, its key, and how it selects variants.

Rules of this file: data only, made once per request by the flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.key import CacheKey, build_key
from edgeproxy.policy.vary import selecting_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.engine.exchange import Exchange
    from edgeproxy.rules.model import Matched, Rule
    from edgeproxy.store.base import Select


@dataclass(slots=True)
class Ask:
    """``vary``: the selecting fields, once a flight has shown them. ``doubts``: failures of others that were
    not taken for this request's (coalesce.py)."""

    exchange: Exchange
    matched: Matched
    key: CacheKey
    select: Select
    vary: tuple[str, ...] | None = None
    doubts: int = 0

    @classmethod
    def of(cls, exchange: Exchange, matched: Matched, prefix: str | None = None) -> Ask:
        """``prefix``: key.plain_prefix of the request, where it is known."""
        head, rule = exchange.head, matched.rule

        def select(names: Sequence[str]) -> tuple[str | None, ...]:
            return selecting_values(names, head, rule.overrides)

        if prefix is None:
            key = build_key(head, rule.key)
        else:
            key = CacheKey(prefix + head.target, head.host, head.target)
        return cls(exchange, matched, key, select)

    @property
    def rule(self) -> Rule:
        return self.matched.rule

    @property
    def is_personal(self) -> bool:
        """Whether the answer is most likely for this client alone (RFC 9111 §3.5)."""
        return "authorization" in self.exchange.head.headers and not self.rule.overrides.shares_authorized
