"""URLs as people and sitemaps write them -> what the edge asks for.

Rules of this file:

- A URL means what it means to clients of this edge: its scheme and host are part of the key. A path alone is
  meant on the host that was given beside it.
- Nothing is fetched from anywhere: whatever the URL's host is, it is the edge's origin that is asked, under
  that name. Where every rule names its hosts, a host that none of them names is refused: it is hardly a site
  of this edge.
- What of a sitemap is of another host than the sitemap is left out, unless that host was named.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.warm.again import Again

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgeproxy.rules.model import RuleSet

_URL = re.compile(r"(https?)://([^/?#@\s]+)([^#]*)(?:#.*)?", re.IGNORECASE)


class NotOurs(ValueError):  # noqa: N818 - it is what is wrong
    """One line: why this is not asked for."""


def again_for_url(url: str, host: str = "", fields: tuple[tuple[str, str], ...] = ()) -> Again:
    """``host``: that of a path alone, with ``http://`` or ``https://`` before it or not. Raises NotOurs."""
    text = url.strip()
    if text.startswith("/") and not text.startswith("//"):
        if not host:
            raise NotOurs("expected a URL with its host, as clients use it")
        text = f"{host if '://' in host else f'http://{host}'}{text}"
    found = _URL.fullmatch(text)
    if found is None:
        raise NotOurs("expected an http URL")
    target = found[3]
    if not target.startswith("/"):
        target = f"/{target}"
    again = Again(found[1].lower(), found[2].lower(), target, fields)
    if not again.sound:
        raise NotOurs("expected a URL of visible ASCII, percent-encoded, of 2,048 characters at most")
    return again


def serves(ruleset: RuleSet, host: str) -> bool:
    """Whether a rule can match ``host`` (or one matches every host, or there are no rules)."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    hosts: list[str] = []
    for rule in ruleset.rules:
        if not rule.match.hosts:
            return True
        hosts += rule.match.hosts
    return not hosts or any(_matches(pattern, name.lower()) for pattern in hosts)


def _matches(pattern: str, name: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def listed(text: str) -> list[str]:
    """The URLs of a list: one a line; empty lines and what begins with # are passed over."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def of_sitemap(urls: Iterable[str], sitemap: Again, hosts: Iterable[str]) -> tuple[list[Again], list[str]]:
    """Those of the sitemap's own host, under its scheme, or of ``hosts``; and those that are not."""
    allowed = {sitemap.host, *(host.lower() for host in hosts)}
    ours: list[Again] = []
    others: list[str] = []
    for url in urls:
        try:
            again = again_for_url(url, fields=sitemap.fields)
        except NotOurs:
            others.append(url)
            continue
        if again.host in allowed:
            # Clients come to the edge by the scheme that the sitemap was asked for by, whatever it says.
            ours.append(Again(sitemap.scheme, again.host, again.target, again.fields))
        else:
            others.append(url)
    return ours, others
