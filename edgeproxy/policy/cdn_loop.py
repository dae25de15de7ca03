"""CDN-Loop: which edges a request has passed through (RFC 8586).

Rules of this file:

- Our member is ``NAME; node=ID``: several edges of one name may stand in a row (a shield), so that the name
  alone is no loop. The ID is the same in all workers of a node.
- What others have put there stays as it is, in order (RFC 8586 §2: it is not modified or removed).
- A request that names us has been here. So is one taken that names MOST edges: a loop among nodes that take
  turns shows in nothing else.
"""

from __future__ import annotations

from edgeproxy.policy.lists import split_list, unquote

FIELD = "cdn-loop"
MOST = 20


def loop_member(name: str, node: str) -> str:
    """What we are called in the field. ``node`` "": by the name alone."""
    return f"{name}; node={node}" if node else name


def with_member(value: str | None, member: str) -> str:
    """The field's value when the request goes on."""
    return f"{value}, {member}" if value and value.strip() else member


def has_looped(value: str, member: str) -> bool:
    """Whether a request with this field's value is not to go on."""
    members = split_list(value)
    return len(members) >= MOST or _plain(member) in map(_plain, members)


def _plain(member: str) -> tuple[str, str]:
    """Name and node, however they are written."""
    name, *parameters = split_list(member, ";") or [""]
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "node":
            return name.lower(), unquote(value.strip())
    return name.lower(), ""
