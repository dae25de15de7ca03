"""Sets of IP networks, asked whether an address is in one of them; and what counts as one client.

Rules of this file:

- An IPv4 address in IPv6 clothes (::ffff:192.0.2.1) is what it is: IPv4.
- Asking costs one look-up for each prefix length that occurs, however many networks there are.
- Text that is no address is in no network.
- A client is an IPv4 address or an IPv6 /64: whoever has one address of a /64 has them all.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_BITS = {4: 32, 6: 128}


def networks_in(text: str) -> tuple[Network, ...]:
    """``10.0.0.0/8, ::1`` as networks. Raises ValueError that says what was expected."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ValueError(f"expected networks, such as 10.0.0.0/8,::1 ({error})") from None


def address_in(text: str) -> Address | None:
    """The address, without a port; None where there is none."""
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


def one_client(address: str) -> str:
    """What the limits for a client count by: the address, of IPv6 its /64; other text as it is."""
    if ":" not in address:
        return address
    found = address_in(address)
    if not isinstance(found, IPv6Address):
        return address if found is None else str(found)
    return f"{IPv6Address(int(found) >> 64 << 64)}/64"


class Networks:
    """``address in Networks(...)``; ``address`` is text or an address. False when it is empty."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        tables: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            shift = _BITS[network.version] - network.prefixlen
            tables.setdefault((network.version, shift), set()).add(int(network.network_address) >> shift)
        self._tables = tuple((version, shift, frozenset(held)) for (version, shift), held in tables.items())

    def __bool__(self) -> bool:
        return bool(self._tables)

    def __str__(self) -> str:
        """As they may be written: ``10.0.0.0/8, ::1/128``."""
        return ", ".join(
            f"{(IPv4Address if version == 4 else IPv6Address)(number << shift)}/{_BITS[version] - shift}"
            for version, shift, held in sorted(self._tables, key=lambda table: table[:2])
            for number in sorted(held)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Networks) and set(self._tables) == set(other._tables)

    def __hash__(self) -> int:
        return hash(frozenset(self._tables))

    def __contains__(self, address: str | Address | None) -> bool:
        if not self._tables:
            return False
        found = address_in(address) if isinstance(address, str) else address
        if found is None:
            return False
        number, kind = int(found), found.version
        return any(kind == version and number >> shift in held for version, shift, held in self._tables)


NOBODY = Networks()
