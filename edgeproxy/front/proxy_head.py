"""What a proxy puts before a connection's octets to tell whose they are: the PROXY protocol, 1 and 2.

Rules of this file: octets in, address out; nothing is read here. What a head does not tell, or tells of a
kind of address that has none ("UNKNOWN", LOCAL, Unix sockets), leaves the client to be who connected. What
the specification (haproxy.org, proxy-protocol.txt, 2.1 and 2.2) does not have is refused.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""The first octets of version 2; no HTTP client sends them."""
LONGEST_LINE = 107
"""Octets of version 1, CRLF included."""
FIXED = 16
"""Octets of version 2 before the addresses."""
LONGEST = 2048
"""Octets of version 2 behind those: addresses, and what else a proxy tells."""

_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?"
    rb"|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)
_KINDS = {4: IPv4Address, 6: IPv6Address}


class NotAHead(ValueError):  # noqa: N818 - it is what came
    """What came is no head of the PROXY protocol."""


def client_of_line(line: bytes) -> str | None:
    """The client that a version 1 line (with its CRLF) names. Raises NotAHead."""
    found = _LINE.fullmatch(line)
    if found is None or len(line) > LONGEST_LINE:
        raise NotAHead("not a PROXY line")
    if found[1] is None:
        return None
    kind = _KINDS[int(found[1])]
    if int(found[4]) > 65535 or int(found[5]) > 65535:
        raise NotAHead("not a port")
    try:
        kind(found[3].decode())
        return str(kind(found[2].decode()))
    except ValueError as error:
        raise NotAHead(str(error)) from None


def length_of(fixed: bytes) -> int:
    """Octets that follow the first FIXED of version 2. Raises NotAHead."""
    if not fixed.startswith(SIGNATURE) or fixed[12] not in (0x20, 0x21):
        raise NotAHead("not version 2, or an unknown command")
    length = int.from_bytes(fixed[14:16], "big")
    if length > LONGEST:
        raise NotAHead(f"longer than {LONGEST} octets")
    return length


def client_of(fixed: bytes, rest: bytes) -> str | None:
    """The client that a version 2 head names. Raises NotAHead."""
    if length_of(fixed) != len(rest):
        raise NotAHead("not as long as it says")
    if fixed[12] == 0x20:  # LOCAL: the proxy speaks for itself
        return None
    family = fixed[13] >> 4
    size = {1: 4, 2: 16}.get(family)
    if size is None or fixed[13] & 0xF != 1:  # not TCP over IP
        return None
    if len(rest) < 2 * size + 4:
        raise NotAHead("shorter than its addresses")
    return str(IPv4Address(rest[:4]) if size == 4 else IPv6Address(rest[:16]))
