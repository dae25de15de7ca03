"""A request that the cache may answer: the exchange, its rule, its key, and how it selects variants.

Rules of this file: data only, made once per request by the flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.engine.exchange import Exchange
    from edgeproxy.key import CacheKey
    from edgeproxy.rules.model import Matched, Rule
    from edgeproxy.store.base import Select


@dataclass(slots=True)
class Ask:
    """``vary``: the selecting fields, once a flight has shown them."""

    exchange: Exchange
    matched: Matched
    key: CacheKey
    select: Select
    vary: tuple[str, ...] | None = None

    @property
    def rule(self) -> Rule:
        return self.matched.rule
