"""What an unsafe request makes invalid (RFC 9111 §4.4).

Rules of this file:

- Only an answer that is no error invalidates: a failed write changed nothing.
- Only the same host's URIs: else one site could purge another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    from edgeproxy.policy.head import RequestHead, ResponseHead

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})
"""Methods registered as safe. A method that is not known counts as unsafe (§4.4)."""

_DEFAULT_PORT = {"http": ":80", "https": ":443"}


def invalidates(method: str, status: int) -> bool:
    """Whether the target URI's stored answers are invalid after this."""
    return method not in SAFE and 200 <= status < 400


def affected_targets(request: RequestHead, head: ResponseHead) -> tuple[tuple[str, str], ...]:
    """(host, target) of each URI concerned: the request's own first, then those of Location and
    Content-Location on the same host, relative references resolved."""
    affected = {(request.host, request.target): None}
    for name in ("location", "content-location"):
        for reference in head.headers.get_all(name):
            target = same_host_target(request, reference)
            if target is not None:
                affected[request.host, target] = None
    return tuple(affected)


def same_host_target(request: RequestHead, reference: str) -> str | None:
    """The target that a reference in an answer to ``request`` means; None on another host."""
    try:
        url = urlsplit(urljoin(f"{request.scheme}://{request.host}{request.target}", reference.strip()))
    except ValueError:
        return None
    # The scheme is not compared: behind a TLS terminator an origin may write the other one.
    here = request.host.lower().removesuffix(_DEFAULT_PORT.get(request.scheme, ""))
    there = url.netloc.lower().removesuffix(_DEFAULT_PORT.get(url.scheme, ""))
    if here != there or url.scheme not in _DEFAULT_PORT:
        return None
    # An empty query is one all the same, and urljoin drops it.
    mark = "?" if url.query or reference.partition("#")[0].rstrip().endswith("?") else ""
    return f"{url.path or '/'}{mark}{url.query}"
