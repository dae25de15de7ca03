"""Request + rule -> CacheKey: the name under which an answer is stored.

Rules of this file:

- Pure. Two requests have one key only if the rule says that they may share an answer.
- Octets are not re-quoted and case is kept: ``/a%2Fb`` and ``/a/b`` are two resources, as they are to
  the origin. What the key drops (ignored parameters), the forwarded request still carries.
- The method is not part: HEAD is answered from GET. Variants (Vary) are told apart below the key.
- Every part is length-delimited or cannot hold the delimiter, so that no two requests collide by
  concatenation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import KeyPolicy


@dataclass(frozen=True, slots=True)
class CacheKey:
    """``primary`` names the stored answer. ``host`` and ``target`` are its URL as purging sees it:
    the host ("" where the rule leaves it out) and the target with ignored parameters gone."""

    primary: str
    host: str
    target: str


def build_key(request: RequestHead, policy: KeyPolicy) -> CacheKey:
    target = normalised_target(request.path, request.query, policy)
    host = request.host if policy.host else ""
    scheme = request.scheme if policy.host else ""
    primary = f"{scheme}://{host}{target}"
    if policy.headers or policy.cookies:
        parts = [primary]
        for name in policy.headers:
            value = request.headers.get(name)
            parts.append("-" if value is None else f"+{value.strip()}")
        if policy.cookies:
            jar = cookies(request)
            for name in policy.cookies:
                value = jar.get(name)
                parts.append("-" if value is None else f"+{value}")
        # A field value cannot hold a NUL: the C parser refuses it, so the delimiter is safe.
        primary = "\0".join(parts)
    return CacheKey(primary, host, target)


def normalised_target(path: str, query: str | None, policy: KeyPolicy) -> str:
    """The target with the query reduced as the rule says. An empty query is kept distinct ("/a?")
    unless the rule touches the query at all."""
    if query is None:
        return path
    if policy.query_allow is None and not policy.query_ignore and not policy.sort:
        return f"{path}?{query}"
    kept = [p for p in query.split("&") if p and _keeps(p, policy)]
    if policy.sort:
        # By name only, stable: "a=2&a=1" and "a=1&a=2" can mean different things to the origin.
        kept.sort(key=lambda p: p.partition("=")[0])
    return f"{path}?{'&'.join(kept)}" if kept else path


def _keeps(parameter: str, policy: KeyPolicy) -> bool:
    name = unquote(parameter.partition("=")[0], encoding="latin-1")
    if policy.query_allow is not None and not _listed(name, policy.query_allow):
        return False
    return not _listed(name, policy.query_ignore)


def _listed(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)


def cookies(request: RequestHead) -> dict[str, str]:
    """The request's cookies by name; where a name is repeated, the first counts (as browsers send the
    most specific one first)."""
    jar: dict[str, str] = {}
    for line in request.headers.get_all("cookie"):
        for pair in line.split(";"):
            name, mark, value = pair.strip().partition("=")
            if mark:
                jar.setdefault(name, value)
    return jar
