"""One stored answer with its body: what L1 holds and what L2 keeps as bytes (codec.py).

Rules of this file:

- What was stored is never changed: a refresh or a soft purge makes a new Entry. Six slots are run-time
  marks (``checked``, ``current``, ``heads``, ``hits``, ``counted``, ``ahead``) and one, ``codings``, only
  ever grows.
- ``epoch`` is the purge number at which the fetch (or revalidation) *started*; ``started`` the steady
  nanosecond stamp of that start. Readers compare ``epoch`` with the purges (purge.py); stores let the
  higher ``order`` win, so an older, slower fetch never overwrites a newer one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeproxy.policy.stored import Stored

OVERHEAD = 1000
"""Octets counted for an entry beside its body and fields: objects, dict slots, rendered heads."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Entry:
    """``primary`` is CacheKey.primary; ``host`` and ``target`` the URL that purging sees; ``variant``
    distinguishes entries of one primary ("" when nothing varies, else store.entry.variant_id)."""

    primary: str
    host: str
    target: str
    variant: str
    stored: Stored
    body: bytes
    epoch: int
    started: int
    tags: tuple[str, ...] = ()
    rule: str = "none"
    codings: dict[str, bytes] = field(default_factory=dict)
    """Coded bodies made here: coding -> octets. The body as stored is not among them."""
    checked: int = -1
    """The purge number this entry was last found good at."""
    current: bool = False
    """L1 holds this very entry, and the same request would be given it again."""
    fresh_until: float = 0.0
    """``stored.freshness.fresh_until``, at hand (0 when it must be validated)."""
    heads: dict[object, bytes] = field(default_factory=dict)
    """Rendered constant parts of heads, by whatever the front keys them on."""
    hits: int = 0
    refined: tuple[str, ...] = ()
    """Codings that have been made again at the best quality."""
    fetch_seconds: float = 0.0
    """What the fetch cost: the origin's seconds that a hit saves."""
    seen_as: str = ""
    """Scheme and host it was asked for under, where they are no part of the key and it was fetched here."""
    counted: int = 0
    """How many of ``hits`` the count of what is most wanted has."""
    ahead: float = 0.0
    """When it is to be refreshed before its time, once that was looked at."""

    def __post_init__(self) -> None:
        freshness = self.stored.freshness
        self.fresh_until = 0.0 if freshness.must_validate else freshness.fresh_until

    @property
    def order(self) -> tuple[int, int]:
        """Which fetch began later."""
        return (self.epoch, self.started)

    @property
    def size(self) -> int:
        """Octets this entry takes in L1, overhead counted."""
        fields = sum(len(n) + len(v) + 150 for n, v in self.stored.headers.raw)
        coded = sum(len(b) + 100 for b in self.codings.values())
        return (
            OVERHEAD + len(self.primary) + len(self.target) + fields + len(self.body) + coded
            + sum(len(t) + 60 for t in self.tags) + sum(len(h) + 100 for h in self.heads.values())
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class VarySpec:
    """What a primary key varies on, as the newest answer said: the names, and how many variants exist."""

    names: tuple[str, ...]
