"""Request + rule -> CacheKey: the name under which an answer is stored.

Rules of this file:

- Pure. Two requests have one key only if the rule says that they may share an answer.
- Octets are not re-quoted and case is kept: ``/a%2Fb`` and ``/a/b`` are two resources, as they are to
  the origin. What the key drops (ignored parameters), the forwarded request still carries.
- The method is no part where there is no content: HEAD is answered from GET. Where a rule has the content in
  the key, its name is part, and that has the method in it (policy/content.py). Variants (Vary) are told apart
  below the key.
- Every part is length-delimited or cannot hold the delimiter, so that no two requests collide by
  concatenation.
- What leads to a rule besides path and host is part (``scope``): what members get, whom a condition tells
  apart, is not what the rule below it gives to all.
- A key made under one policy is never one made under another: the plain key is scheme, host and target;
  whatever changes it adds a mark of the policy. So two rules for one path, or a rule before and after an
  edit, do not answer for each other.
- White space around a value is what HTTP calls so, SP and HTAB: to the origin, NBSP and NEL are part of it.
- Keys are shown in logs and on pages: cookies and credentials are part of them as digests only.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING
from urllib.parse import unquote

from edgeproxy.policy.lists import OWS
from edgeproxy.value import value

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead
    from edgeproxy.rules.model import KeyPolicy

SECRET = frozenset({
    "authorization", "cookie", "proxy-authorization", "x-api-key", "x-auth-token", "x-access-token",
    "x-session-token", "x-session-id",
})  # fmt: skip
"""Fields whose values are credentials."""
LONG = 256
"""Octets from which on a value is part of the key as a digest only: keys stand in tables that count them."""


@value
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
    named = _as_sent(request) if host else ""
    primary = f"{scheme}://{_delimited(named)}{'' if target.startswith('/') else ' '}{target}"
    mark = _mark(policy.query_allow, policy.query_ignore, policy.sort)
    if mark or policy.headers or policy.cookies or policy.scope or request.content_key:
        parts = [primary]
        parts += [f"{n}{_value(request.headers.get(n), secret=n in SECRET)}" for n in policy.headers]
        if policy.cookies:
            jar = all_cookies(request)
            for name in policy.cookies:
                values = jar.get(name)
                joined = None if values is None else ";".join(values)
                parts.append(f"{name};{_value(joined, secret=True)}")
        if mark:
            parts.append(mark)
        if policy.scope:
            parts.append(f"!{policy.scope}")
        if request.content_key:
            parts.append(f"@{request.content_key}")
        # A field value cannot hold a NUL: the C parser refuses it, so the delimiter is safe.
        primary = "\0".join(parts)
    return CacheKey(primary, host, target)


def place_of(primary: str) -> tuple[str, str]:
    """``CacheKey.host`` and ``CacheKey.target`` of a key, from its name."""
    url = primary.partition("://")[2].partition("\0")[0]
    end = min((at for at in (url.find("/"), url.find(" ")) if at >= 0), default=len(url))
    host, target = url[:end].lower(), url[end:].removeprefix(" ")
    if "%" in host:
        host = host.replace("%2f", "/").replace("%20", " ").replace("%25", "%")
    return host, target


def plain_prefix(request: RequestHead, policy: KeyPolicy) -> str | None:
    """What the key of this request has before its target, where the rest of it is just the target: the same
    for all requests with these fields, this scheme and a target that begins with "/". None elsewhere."""
    if (
        not policy.host
        or policy.headers or policy.cookies or policy.scope or policy.sort or policy.query_ignore
        or policy.query_allow is not None
        or request.content_key
    ):  # fmt: skip
        return None
    return f"{request.scheme}://{_delimited(_as_sent(request))}"


def _as_sent(request: RequestHead) -> str:
    """The host in the letters the client sent, since the origin sees those and may repeat them. Purging goes
    by ``CacheKey.host``, which is in lower case, and so takes all of them."""
    sent = (request.headers.get("host") or "").strip(OWS)
    return sent if sent.lower() == request.host else request.host


def _delimited(host: str) -> str:
    """``host`` unable to run on into the target. A real host has none of these octets; but a Host field is
    only a field value, and "a/b" + "/c" must not become "a" + "/b/c"."""
    if "/" in host or " " in host or "%" in host:
        return host.replace("%", "%25").replace("/", "%2F").replace(" ", "%20")
    return host


def _value(value: str | None, *, secret: bool) -> str:
    """Give "-" where there is none, "=" and the value, or "#" and its digest."""
    if value is None:
        return "-"
    if secret or len(value) > LONG:
        return f"#{blake2b(value.strip(OWS).encode('latin-1', 'replace'), digest_size=16).hexdigest()}"
    return f"={value.strip(OWS)}"


@lru_cache(maxsize=1024)
def _mark(allow: tuple[str, ...] | None, ignore: tuple[str, ...], sort: bool) -> str:  # noqa: FBT001
    """Names what the policy does to the query; "" if it takes it as it is."""
    if allow is None and not ignore and not sort:
        return ""
    said = repr((None if allow is None else sorted(allow), sorted(ignore), sort))
    return f"?{blake2b(said.encode(), digest_size=4).hexdigest()}"


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
    if policy.query_allow == ():
        return False
    if ";" in parameter:
        # Some origins also split at ";": in "utm_x=1;q=evil" there may be a q, and it must count.
        return True
    name = unquote(parameter.partition("=")[0], encoding="latin-1")
    if policy.query_allow is not None and not _listed(name, policy.query_allow):
        return False
    return not _listed(name, policy.query_ignore)


def _listed(name: str, patterns: tuple[str, ...]) -> bool:
    return any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)


def cookies(request: RequestHead) -> dict[str, str]:
    """The request's cookies by name; where a name is repeated, the first counts (as browsers send the
    most specific one first)."""
    return {name: values[0] for name, values in all_cookies(request).items()}


def all_cookies(request: RequestHead) -> dict[str, list[str]]:
    """Every value of each cookie, in order: which of a repeated one counts is the origin's to say, so a key
    holds them all."""
    jar: dict[str, list[str]] = {}
    for line in request.headers.get_all("cookie"):
        for pair in line.split(";"):
            name, mark, value = pair.partition("=")
            if mark:
                jar.setdefault(name.strip(OWS), []).append(value.strip(OWS))
    return jar
