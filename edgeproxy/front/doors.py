"""Who may hold a connection: how many there are in all and of each client, and who is let in at all.

Rules of this file:

- Asked once for each connection, when it is made, and told when it is gone: a request costs nothing here.
- Who is turned away is told nothing: whoever floods us gets no octets for it, and others get our time. When
  all places are taken not even a connection handler is made (TurnedAway).
- Trusted proxies speak for many clients: the limit per client is not for them, and what is said of addresses
  is asked again of whom they speak for (``permits``).
- Where the process may open few descriptors, fewer connections are taken than the settings say
  (edgeproxy/descriptors.py).
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.networks import NOBODY, Networks, one_client

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("edgeproxy.front")


@dataclass(frozen=True, slots=True)
class Terms:
    """``most``: connections in all; ``each``: of one client, 0 for any number; ``exempt``: whom ``each`` is
    not for; ``allow``: where it is not empty, nobody else; ``deny``: not these."""

    most: int = 10_000
    each: int = 0
    exempt: Networks = NOBODY
    allow: Networks = NOBODY
    deny: Networks = NOBODY

    def permits(self, client: str) -> bool:
        """Whether requests of this address are answered."""
        if client in self.deny:
            return False
        return not self.allow or client in self.allow


class Doors:
    """Per worker."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.open = 0
        self.full = self.crowded = self.denied = 0
        """Turned away: too many in all, too many of one client, not permitted."""
        self._each: dict[str, int] = {}

    def are_full(self) -> bool:
        """Whether all places are taken; then one more is counted as turned away."""
        if self.open < self.terms.most:
            return False
        if not self.full:
            log.warning("%d client connections are open: more are refused", self.open)
        self.full += 1
        return True

    def enter(self, peer: str) -> str | None:
        """Take a place: what ``leave`` is to be given; None where there is none. ``peer`` "" is a socket that
        has no address."""
        if self.are_full():
            return None
        terms = self.terms
        if not terms.permits(peer):
            self.denied += 1
            return None
        client = ""
        if terms.each and peer and peer not in terms.exempt:
            client = one_client(peer)
            held = self._each.get(client, 0)
            if held >= terms.each:
                if not self.crowded:
                    log.warning("%s has %d connections open: more of one client are refused", client, held)
                self.crowded += 1
                return None
            self._each[client] = held + 1
        self.open += 1
        return client

    def leave(self, client: str) -> None:
        self.open -= 1
        if client:
            held = self._each[client] - 1
            if held:
                self._each[client] = held
            else:
                del self._each[client]

    def numbers(self) -> Mapping[str, int]:
        """For the metrics."""
        return {
            "open": self.open,
            "limit": self.terms.most,
            "full_refused": self.full,
            "client_limit_refused": self.crowded,
            "denied_refused": self.denied,
        }


class TurnedAway(asyncio.Protocol):
    """Ends each connection that it is given; one is enough for all of them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.abort()  # type: ignore[attr-defined]
