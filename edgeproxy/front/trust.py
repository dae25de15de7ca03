"""Whom a request comes from, where it comes through proxies that the operator trusts.

Rules of this file:

- Only what a trusted peer says is read; from all others X-Forwarded-For, X-Forwarded-Proto and Forwarded are
  nothing. Forwarded (RFC 7239) counts where neither of the other two is there: a proxy that sets those may
  well pass on a Forwarded that a client has made up.
- The client is the right-most address of X-Forwarded-For that is no trusted proxy: what stands to the left
  of it may be anyone's invention. An element that is no address ends the search.
- The scheme is a trusted proxy's X-Forwarded-Proto where that is one word, http or https; of Forwarded the
  ``proto`` beside the client.
- These fields mean something from one peer and nothing from another, so that requests with them are nothing
  for the lane, which knows octets alone (FIELDS).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.networks import Network, Networks, address_in
from edgeproxy.policy.lists import split_list, unquote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.policy.head import Headers

_NODE = re.compile(r"[A-Za-z0-9._:\[\]-]+")
FIELDS = frozenset({"x-forwarded-for", "x-forwarded-proto", "forwarded"})


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
        schemes: list[str] = []
        if not hops and said is None and "forwarded" in headers:
            elements = [element for value in headers.get_all("forwarded") for element in _elements(value)]
            hops = [element.get("for") or "unknown" for element in elements]
            schemes = [element.get("proto", "").lower() for element in elements]
        client = peer
        for place, hop in reversed(list(enumerate(hops))):
            address = address_in(hop)
            if address is None:
                break
            client = str(address)
            if schemes and schemes[place] in ("http", "https"):
                scheme = schemes[place]
            if address not in self._proxies:
                break
        return Source(client, ", ".join([*hops, peer]), scheme)


def _elements(value: str) -> list[dict[str, str]]:
    """Forwarded by elements, nearest last. What cannot be an address in a list is "unknown" (§6.2)."""
    found = []
    for element in split_list(value):
        pairs: dict[str, str] = {}
        for pair in split_list(element, ";"):
            name, _, said = pair.partition("=")
            said = unquote(said.strip())
            pairs[name.strip().lower()] = said if _NODE.fullmatch(said) else "unknown"
        found.append(pairs)
    return found
