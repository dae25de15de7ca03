"""What the engine asks of the store: a Protocol, so that it knows no tier and no backend.

Rules of this file: types only. A store never raises and never hurts a request: whatever goes wrong behind
it is a miss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edgeproxy.value import value

if TYPE_CHECKING:
    from edgeproxy.policy.stored import Stored
    from edgeproxy.policy.vocabulary import LookupMiss, NotStored, Tier
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.packed import Recipe
    from edgeproxy.store.purge import PurgeOrder, PurgeReceipt

Select = Callable[[Sequence[str]], tuple[str | None, ...]]
"""Gives the request's normalised values of the selecting fields named (policy/vary.py)."""


@value
class Found:
    """What a lookup gave: the entry that matches the request's selecting fields, if any.

    ``others``: something is stored under the key, but for other selecting fields (vary-miss).
    """

    entry: Entry | None
    tier: Tier | None = None
    miss: LookupMiss | None = None
    others: bool = False
    seconds: float = 0.0
    """Spent on the shared store."""


class Store(Protocol):
    """Both tiers behind one face (store/tiered.py)."""

    @property
    def epoch(self) -> int:
        """The current purge number. Taken when a fetch starts, it travels with the entry."""

    def peek(self, primary: str, select: Select) -> Found:
        """L1 only, synchronous: the hot path. ``select(names)`` gives the request's normalised values
        of the selecting fields ``names``."""

    def packed(self, primary: str) -> Entry | None:
        """The entry of a key that does not vary, if it is in L1, packed, and known to be good."""

    def lookup_now(self, primary: str, select: Select) -> Found | None:
        """As ``lookup``, where that can be said without waiting, else None. What it gives may be packed."""

    def open(self, entry: Entry) -> None:
        """Have what it stores at hand: for the ordinary way with what ``lookup_now`` gave."""

    async def lookup(self, primary: str, select: Select) -> Found:
        """L2 (L1 was peeked at already), promoting what it finds to L1. Never raises; never takes
        longer than the shared store's budget."""

    def put(self, entry: Entry) -> bool:
        """Into L1 at once and into L2 in the background; False if a purge or a fetch that began later
        has overtaken it, or neither takes anything like it now (and then into neither)."""

    def why_not(self, entry: Entry) -> NotStored:
        """Of one that was not put."""

    def unkept(self, octets: int) -> NotStored | None:
        """Why nothing of this length is kept now, whatever it is; None where it is."""

    def after_writes(self, call: Callable[[], None]) -> None:
        """Call when the shared store has what was put so far, or has dropped it; at once where there is no
        such store, or where it is far behind."""

    def recipe(self, stored: Stored) -> Recipe | None:
        """How answers like this one are packed (packed.py), to make such entries without what is in between;
        None where they are not."""

    def overtaken(self, entry: Entry) -> bool:
        """Has a hard purge that concerns the entry been made since its fetch began?"""

    def forget(self, entry: Entry) -> None:
        """Drop this one variant from both tiers (it turned out unusable)."""

    def note_uncacheable(self, primary: str) -> None:
        """Remember the key as hit-for-miss for a bounded time, in a bounded table."""

    def is_uncacheable(self, primary: str) -> bool: ...

    async def purge(self, order: PurgeOrder, *, wait: bool = True) -> PurgeReceipt:
        """Make it so: when this returns, no reader of this node serves what the order names, nor, where the
        receipt is complete, one of another node. ``wait`` False: not for other nodes; a later purge that is
        waited for covers this one."""
