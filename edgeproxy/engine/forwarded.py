"""The field Forwarded (RFC 7239), as the edge tells an origin whom a request comes from and how.

Rules of this file:

- It says what X-Forwarded-For says, one element for each address: what is no address there is "unknown"
  (§6.2), and ports are left out.
- Scheme and host stand beside the client, the right-most address that is no trusted proxy: there the next
  reader looks for them, and so does front/trust.py.
- Nothing of what came in a Forwarded goes out as it came.
"""

from __future__ import annotations

import re

from edgeproxy.networks import address_in

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def forwarded(chain: str, client: str, scheme: str, host: str) -> str:
    """``chain``: the value of X-Forwarded-For; ``host`` "" is not told."""
    hops = [address_in(hop.strip()) for hop in chain.split(",")]
    texts = [None if hop is None else str(hop) for hop in hops]
    beside = f";host={_value(host)}" if host else ""
    whose = len(texts) - 1
    if client in texts:
        whose -= texts[::-1].index(client)
    return ", ".join(
        f"for={'unknown' if text is None else _value(f'[{text}]' if ':' in text else text)}"
        + (f"{beside};proto={scheme}" if place == whose else "")
        for place, text in enumerate(texts)
    )


def _value(text: str) -> str:
    """``text`` (without quotes and backslashes) as a value: only tokens go unquoted."""
    return text if _TOKEN.fullmatch(text) else f'"{text}"'
