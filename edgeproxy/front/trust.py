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

import re
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Network

    from edgeproxy.policy.head import Headers

FIELDS = frozenset({"x-forwarded-for", "x-forwarded-proto"})
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Source:
    """``chain``: what the origin is told in X-Forwarded-For."""

    client: str
    chain: str
    scheme: str


class Trust:
    """``proxies``: the networks that are believed."""

    def __init__(self, proxies: Sequence[IPv4Network | IPv6Network]) -> None:
        self._proxies = tuple(proxies)

    def source(self, peer: str, scheme: str, headers: Headers) -> Source:
        """Whom a request of ``peer`` comes from; ``scheme`` is that of the connection."""
        if not self._trusts(_address(peer)):
            return Source(peer, peer, scheme)
        said = headers.get("x-forwarded-proto")
        if said is not None and said.strip().lower() in ("http", "https"):
            scheme = said.strip().lower()
        hops = [hop.strip() for value in headers.get_all("x-forwarded-for") for hop in value.split(",")]
        hops = [hop for hop in hops if hop]
        client = peer
        for hop in reversed(hops):
            address = _address(hop)
            if address is None:
                break
            client = str(address)
            if not self._trusts(address):
                break
        return Source(client, ", ".join([*hops, peer]), scheme)

    def _trusts(self, address: IPv4Address | IPv6Address | None) -> bool:
        return address is not None and any(address in network for network in self._proxies)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address, without a port; an IPv4 one in IPv6 clothes as what it is."""
    found = _WITH_PORT.fullmatch(text)
    if found is not None:
        text = found[1] or found[2]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
