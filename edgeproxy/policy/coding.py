"""Content codings: which one a client gets, which answers the edge codes, how their ETags differ.

Rules of this file:

- Negotiation as RFC 9110 §12.5.3 says, weights and all; no substring ever decides.
- "" is identity, here and everywhere else in edgeproxy.
- Each coding of a body is a representation of its own and has an ETag of its own (§8.8.3.3).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING

from edgeproxy.policy.cache_control import response_directives, targeted_directives
from edgeproxy.policy.lists import LONGEST, LONGEST_TAGS, REMEMBERED, split_list, weighted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeproxy.policy.head import Headers
    from edgeproxy.policy.stored import Compression

CODING_ALIASES = {"x-gzip": "gzip", "x-compress": "compress"}
"""Names that mean the same coding (RFC 9110 §8.4.1)."""

_NEVER_CODED = frozenset({204, 205, 206, 304, 416})
"""Without a body, or a part of one: coding a part would make it a part of something else."""


def content_coding(headers: Headers) -> str:
    """The codings a body came with, as one word: "" for identity, "gzip", "gzip,br"."""
    value = headers.get("content-encoding")
    if value is None:
        return ""
    codings = (CODING_ALIASES.get(name, name) for name, _ in weighted(value))
    return ",".join(name for name in codings if name != "identity")


def choose_coding(accept_encoding: str | None, codings: Sequence[str]) -> str:
    """The coding of ``codings`` (in the edge's order of preference) that the client likes best, or "".

    Without Accept-Encoding any coding is acceptable, but a client that says nothing often cannot decode:
    it gets identity. Where everything is refused identity is sent as well (§12.5.3 allows that), and to who
    says more than can be meant.
    """
    if accept_encoding is None or len(accept_encoding) > LONGEST:
        return ""
    choose = _chosen if len(accept_encoding) <= REMEMBERED else _chosen.__wrapped__
    return choose(accept_encoding, tuple(codings))


@lru_cache(maxsize=256)
def _chosen(accept_encoding: str, codings: tuple[str, ...]) -> str:
    weights = {CODING_ALIASES.get(name, name): weight for name, weight in weighted(accept_encoding)}
    others = weights.get("*", 0.0)
    best, best_weight = "", 0.0
    for coding in codings:
        weight = weights.get(coding, others)
        if weight > best_weight:
            best, best_weight = coding, weight
    # A client that gives identity a greater weight means it. Where it does not name it (nor "*"), any
    # coding that it did name goes first.
    return "" if weights.get("identity", others) > best_weight else best


def compressible(status: int, headers: Headers, compression: Compression, length: int | None = None) -> bool:
    """Whether the edge may code this answer's body. ``length``: of the body; None or -1 where not known.

    no-transform forbids it (RFC 9110 §7.7), in Cache-Control as well as in a targeted field: it speaks of
    the message, and to every intermediary.
    """
    if not compression.enabled or status < 200 or status in _NEVER_CODED:
        return False
    if length is not None and 0 <= length < compression.minimum:
        return False
    if content_coding(headers) or "content-range" in headers:
        return False
    if _forbids_transforming(headers):
        return False
    return _listed(headers.get("content-type") or "", compression.types)


def _forbids_transforming(headers: Headers) -> bool:
    # Looked for before the fields are parsed: this is asked on every hit, and it is hardly ever there.
    said = "no-transform"
    if said in (headers.get("cache-control") or "").lower() and response_directives(headers).no_transform:
        return True
    if said not in (headers.get("cdn-cache-control") or ""):
        return False
    targeted = targeted_directives(headers)
    return targeted is not None and targeted.no_transform


@lru_cache(maxsize=256)
def _listed(content_type: str, types: tuple[str, ...]) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return any(fnmatchcase(media_type, pattern) for pattern in types)


def coded_etag(etag: str, coding: str) -> str:
    """The ETag of the body in ``coding``: ``"abc"`` -> ``"abc-br"``, ``W/"abc"`` -> ``W/"abc-br"``.

    An origin's unquoted value gets the suffix at its end: no proper tag, but still one of its own.
    """
    if not coding:
        return etag
    return f'{etag[:-1]}-{coding}"' if etag.endswith('"') else f"{etag}-{coding}"


def with_plain_etags(condition: str, codings: Sequence[str]) -> str:
    """If-Match or If-None-Match for an origin, which knows its own ETags and not those of the codings made
    here: ``"abc-br"`` -> ``"abc-br", "abc"``. The tag as it came stays, should it be the origin's own."""
    if len(condition) > LONGEST_TAGS:
        return condition
    tags = split_list(condition)
    plain = [
        f'{tag[: -len(end)]}"'
        for tag in tags
        for coding in codings
        if len(tag) > len(end := f'-{coding}"') and tag.endswith(end)
    ]
    known = set(tags)
    return ", ".join([*tags, *(tag for tag in plain if tag not in known)]) if plain else condition


def named_coding(etag: str | None, if_none_match: str | None, codings: Sequence[str]) -> str:
    """The coding whose ETag the client has named, where the origin confirmed its plain one; else ""."""
    if etag is None or if_none_match is None or len(if_none_match) > LONGEST_TAGS:
        return ""
    opaque = {tag.removeprefix("W/") for tag in split_list(if_none_match)}
    if etag.removeprefix("W/") in opaque:
        return ""
    return next((c for c in codings if coded_etag(etag, c).removeprefix("W/") in opaque), "")
