"""What a warm-up is to ask for: from a list, from sitemaps, or what is most wanted.

Rules of this file: each gives a Plan or raises ValueError with one line; a URL that is not asked for is a
result with its reason, not a fault of the rest. Each URL is asked for once.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError
from edgeproxy.warm.asking import Result
from edgeproxy.warm.sitemap import LARGEST, read_sitemap
from edgeproxy.warm.tally import Came
from edgeproxy.warm.urls import NotOurs, again_for_url, of_sitemap, serves
from edgeproxy.warm.warmer import MOST_URLS, Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgeproxy.rules.model import RuleSet
    from edgeproxy.warm.again import Again
    from edgeproxy.warm.asking import Asker
    from edgeproxy.warm.sitemap import Sitemap

MOST_SITEMAPS = 200
DEEPEST = 2
"""An index may name sitemaps and indexes, and these sitemaps."""

Fields = tuple[tuple[str, str], ...]


def plan_urls(ruleset: RuleSet, urls: Sequence[str], host: str = "", fields: Fields = ()) -> Plan:
    """From a list. Raises ValueError."""
    if len(urls) > MOST_URLS:
        raise ValueError(f"{len(urls)} URLs; at most {MOST_URLS} in one warm-up")
    wanted: dict[Again, None] = {}
    known: list[Result] = []
    for url in urls:
        try:
            again = again_for_url(url, host, fields)
        except NotOurs as error:
            known.append(Result(url[:200], Came.REFUSED, str(error)))
            continue
        if serves(ruleset, again.host):
            wanted[again] = None
        else:
            known.append(Result(again.url, Came.REFUSED, "no rule is for this host"))
    return Plan(tuple(wanted), tuple(known))


async def plan_sitemap(asker: Asker, ruleset: RuleSet, first: Again, hosts: Iterable[str] = ()) -> Plan:
    """From a sitemap, or an index of them, as the origin gives it under the URL's own host. Raises
    ValueError."""
    if not serves(ruleset, first.host):
        raise ValueError(f"no rule is for the host {first.host}")
    hosts = tuple(hosts)
    level, seen = [first], {first}
    wanted: dict[Again, None] = {}
    refused: list[Result] = []
    for _ in range(DEEPEST + 1):
        further: list[Again] = []
        for each in level:
            try:
                found = await _fetch(asker, each)
            except ValueError as error:
                if each is first:
                    raise
                refused.append(Result(each.url, Came.FAILED, str(error)))
                continue
            ours, others = of_sitemap(found.urls, first, hosts)
            wanted.update(dict.fromkeys(a for a in ours if serves(ruleset, a.host)))
            below, strangers = of_sitemap(found.sitemaps, first, hosts)
            refused += (
                Result(url[:200], Came.REFUSED, "not of the sitemap's host") for url in others + strangers
            )
            further += (again for again in below if again not in seen)
            seen.update(below)
            if len(seen) > MOST_SITEMAPS:
                raise ValueError(f"more than {MOST_SITEMAPS} sitemaps")
            if len(wanted) + len(refused) > MOST_URLS:
                raise ValueError(f"more than {MOST_URLS} URLs; at most so many in one warm-up")
        level = list(dict.fromkeys(further))
    refused += (Result(a.url, Came.REFUSED, "an index within an index within an index") for a in level)
    return Plan(tuple(wanted), tuple(refused))


async def _fetch(asker: Asker, again: Again) -> Sitemap:
    try:
        status, body = await asker.read(again, LARGEST)
        if status == 200:
            return await asyncio.to_thread(read_sitemap, body)
    except OriginError as error:
        raise ValueError(f"{again.url}: {error.failure.value}") from None
    except ValueError as error:
        raise ValueError(f"{again.url}: {error}") from None
    raise ValueError(f"{again.url}: the origin says {status}")
