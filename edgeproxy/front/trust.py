"""Whom a request comes from, where it comes through proxies that the operator trusts.

Rules of this file:

- Only what a trusted peer says is read; from all others X-Forwarded-For and X-Forwarded-Proto are nothing.
- The client is the right-most address of X-Forwarded-For that is no trusted proxy: what stands to the left
  of it may be anyone's invention. An element that is no address ends the search.
- The scheme is a trusted proxy's X-Forwarded-Proto where that is one word, http or https.
- These fields mean something from one peer and nothing from another, so that requests with them are nothing
  for the lane, which knows octets alone (FIELDS).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.networks import Network, Networks, address_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.policy.head import Headers

FIELDS = frozenset({"x-forwarded-for", "x-forwarded-proto"})


@dataclass(frozen=True, slots=True)
class Source:
    """``chain``: what the origin is told in X-Forwarded-For."""

    client: str
    chain: str
    scheme: str


class Trust:
    """``proxies``: the networks that are believed."""

    def __init__(self, proxies: Sequence[Network]) -> None:
        self._proxies = Networks(proxies)

    def source(self, peer: str, scheme: str, headers: Headers) -> Source:
        """Whom a request of ``peer`` comes from; ``scheme`` is that of the connection."""
        if address_in(peer) not in self._proxies:
            return Source(peer, peer, scheme)
        said = headers.get("x-forwarded-proto")
        if said is not None and said.strip().lower() in ("http", "https"):
            scheme = said.strip().lower()
        hops = [hop.strip() for value in headers.get_all("x-forwarded-for") for hop in value.split(",")]
        hops = [hop for hop in hops if hop]
        client = peer
        for hop in reversed(hops):
            address = address_in(hop)
            if address is None:
                break
            client = str(address)
            if address not in self._proxies:
                break
        return Source(client, ", ".join([*hops, peer]), scheme)
