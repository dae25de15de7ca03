"""What it takes to ask for a stored answer again: a URL and the fields that select its variant.

Rules of this file:

- Never cookies, never credentials: what cannot be asked for without them is not asked for again. Fields are
  those of the key and of Vary, in their normalised values, and no others.
- All is read from the entry itself, so that what came out of the shared store counts too.
- A guess is checked: a request stands for an entry only if the rules lead it to that very key and variant
  (``leads_to``). So conditions of rules that a plain request does not fulfil lead to None, never to another
  rule's answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgeproxy.key import SECRET, build_key
from edgeproxy.policy.decide import bypass
from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.policy.vary import selecting_values, variant_id

if TYPE_CHECKING:
    from edgeproxy.rules.match import Matcher

LONGEST = 2048
"""Octets of a target, and of all fields together."""
MOST_FIELDS = 16

TARGET = re.compile(r"/[!\"$-~]*")
"""Visible ASCII but "#"."""
HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")
NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}")
VALUE = re.compile(r"[\x21-\x7e\x80-\xff](?:[\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?")
NEVER = SECRET | {"host", "set-cookie", "proxy-authenticate", "connection", "content-length", "upgrade"}
"""Fields that are not sent in the edge's own name: credentials, and what belongs to a connection."""


@dataclass(frozen=True, slots=True)
class Again:
    """``host`` in the letters that the key has; ``fields`` name (lower case) and value."""

    scheme: str
    host: str
    target: str
    fields: tuple[tuple[str, str], ...] = ()

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}{self.target}"

    def head(self) -> RequestHead:
        headers = Headers.of((("Host", self.host), *self.fields))
        return RequestHead("GET", self.scheme, self.host.lower(), self.target, headers)

    @property
    def sound(self) -> bool:
        """Whether it may be sent as it stands: it may come from a file or a page."""
        return (
            self.scheme in ("http", "https")
            and HOST.fullmatch(self.host) is not None
            and len(self.target) <= LONGEST
            and TARGET.fullmatch(self.target) is not None
            and len(self.fields) <= MOST_FIELDS
            and sum(len(n) + len(v) for n, v in self.fields) <= LONGEST
            and all(NAME.fullmatch(n) and n not in NEVER and VALUE.fullmatch(v) for n, v in self.fields)
        )


class Selected(Protocol):
    @property
    def vary(self) -> tuple[str, ...]: ...
    @property
    def selecting(self) -> tuple[str | None, ...]: ...


class Named(Protocol):
    """Of an entry, what names it."""

    @property
    def primary(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def seen_as(self) -> str: ...
    @property
    def stored(self) -> Selected: ...


def again_of(entry: Named) -> Again | None:
    """How to ask for ``entry`` again; None where that takes what is not kept."""
    plain, *marks = entry.primary.split("\0")
    scheme, _, rest = plain.partition("://")
    host = rest.partition("/")[0]
    if not host:
        # The rule's key leaves scheme and host out: those it was asked for with.
        scheme, _, host = entry.seen_as.partition("://")
    fields: dict[str, str] = {}
    for mark in marks:
        if mark[:1] in ("?", "!"):
            continue  # what the policy is, not what the request had
        name, sign, value = _part(mark)
        if sign == "=":
            fields[name] = value
        elif sign != "-":
            return None  # a digest, of a secret or of something long; a cookie; a body
    for name, selected in zip(entry.stored.vary, entry.stored.selecting, strict=True):
        if name == "x-forwarded-proto" or not selected:
            continue
        fields[name] = selected
    again = Again(scheme, host, entry.target, tuple(sorted(fields.items())))
    return again if again.sound else None


_PART = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+?)(=|#|-$|;-$|;)(.*)", re.DOTALL)


def _part(mark: str) -> tuple[str, str, str]:
    """A header or cookie of a key as key.py writes it: name, "=" or "-" (absent) or another sign, value."""
    found = _PART.fullmatch(mark)
    if found is None:
        return mark, "@", ""
    return found[1], "-" if found[2] == ";-" else found[2], found[3]


def leads_to(matcher: Matcher, head: RequestHead, entry: Named) -> bool:
    """Whether the rules lead ``head`` to the key and variant of ``entry``."""
    matched = matcher.match(head)
    rule = matched.rule
    if rule.overrides.pass_ or rule.key.body is not None or bypass(head, rule.overrides) is not None:
        return False
    if build_key(head, rule.key).primary != entry.primary:
        return False
    vary = entry.stored.vary
    return variant_id(vary, selecting_values(vary, head, rule.overrides)) == entry.variant
