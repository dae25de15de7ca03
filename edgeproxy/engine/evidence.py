"""Who looks on when answers of the origin are stored, or not.

Rules of this file: called once an answer is here, never for a hit; what it does must cost next to nothing,
and what it raises is a fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edgeproxy.engine.ask import Ask
    from edgeproxy.policy.head import ResponseHead
    from edgeproxy.policy.vocabulary import NotStored
    from edgeproxy.store.entry import Entry


class Evidence(Protocol):
    def stored(self, ask: Ask, before: Entry | None, entry: Entry) -> None:
        """``entry`` is stored; ``before`` is what memory held in its place."""

    def refused(self, ask: Ask, head: ResponseHead, reason: NotStored) -> None:
        """The answer with this head is not stored."""
