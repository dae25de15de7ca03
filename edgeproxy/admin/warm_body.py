"""The body of POST /api/cache/warm, decoded strictly.

Rules of this file: one of urls, sitemap and most_wanted, and nothing that is not known. Fields to be sent
along are never credentials: what is stored is for everybody.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from edgeproxy.admin.control import WarmRequest
from edgeproxy.admin.problem import Problem

EXPECTED = (
    'expected a JSON object with one of {"urls": […]} {"sitemap": …} {"most_wanted": N}, and optionally '
    '"rate" (a second), "concurrency" (1 to 64), "host" (of paths), "hosts" (others that a sitemap may '
    'name) and "headers" (an object)'
)
LARGEST_BODY = 16 * 1024 * 1024
MOST_WANTED = 1000


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    urls: list[Annotated[str, msgspec.Meta(max_length=4096)]] | msgspec.UnsetType = msgspec.UNSET
    sitemap: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)] | msgspec.UnsetType = msgspec.UNSET
    most_wanted: Annotated[int, msgspec.Meta(ge=1, le=MOST_WANTED)] | msgspec.UnsetType = msgspec.UNSET
    rate: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 20.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    host: Annotated[str, msgspec.Meta(max_length=300)] = ""
    hosts: Annotated[list[str], msgspec.Meta(max_length=100)] = []
    headers: dict[str, str] = {}


_DECODER = msgspec.json.Decoder(_Body)


def decode(body: bytes) -> WarmRequest:
    """Raises Problem (400)."""
    try:
        said = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _wrong(str(error)) from None
    given = [n for n in ("urls", "sitemap", "most_wanted") if getattr(said, n) is not msgspec.UNSET]
    if len(given) != 1:
        raise _wrong(f"exactly one says what to warm, and {' and '.join(given) or 'none of them'} was given")
    if said.urls == []:
        raise _wrong('"urls" is empty')
    if said.most_wanted is not msgspec.UNSET and said.headers:
        raise _wrong("what is most wanted has its own headers")
    return WarmRequest(
        urls=tuple(said.urls) if isinstance(said.urls, list) else (),
        sitemap=said.sitemap if isinstance(said.sitemap, str) else "",
        most_wanted=said.most_wanted if isinstance(said.most_wanted, int) else 0,
        rate=said.rate,
        concurrency=said.concurrency,
        host=said.host,
        hosts=tuple(said.hosts),
        headers=tuple((name.lower(), value.strip()) for name, value in said.headers.items()),
    )


def encode(request: WarmRequest) -> dict[str, object]:
    """The body that means this request."""
    body: dict[str, object] = {
        "rate": request.rate,
        "concurrency": request.concurrency,
        "host": request.host,
        "hosts": list(request.hosts),
        "headers": dict(request.headers),
    }
    if request.urls:
        body["urls"] = list(request.urls)
    elif request.sitemap:
        body["sitemap"] = request.sitemap
    else:
        body["most_wanted"] = request.most_wanted
    return body


def _wrong(what: str) -> Problem:
    return Problem(400, f"{what}; {EXPECTED}")
