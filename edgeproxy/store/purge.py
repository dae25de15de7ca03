"""What a purge is, what it concerns, and what is said of it afterwards.

Rules of this file:

- Pure values and matching; the numbers and the table are cluster/epoch.py.
- An entry whose rule leaves the host out of the key (``entry.host == ""``) answers for every host, so a
  purge for one host concerns it too.
- Patterns are matched in time linear in the target for each ``*``: no regular expression is ever made of
  what somebody sends to the admin port.
- ``matches`` says what an order means; ``PurgeTable.verdict`` is its constant-cost form and may only ever
  purge more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeproxy.store.entry import Entry

LONGEST = 1024
"""Octets that a prefix or pattern may have: what one slot of the purge table's ring holds."""

LONGEST_HOST = 255
"""Octets that a host may have."""

MOST_TARGETS = 1000
"""Targets that one order by URL may name besides its own."""


class PurgeKind(StrEnum):
    """What a purge goes by."""

    URL = "url"
    """One target, all its variants."""
    TAG = "tag"
    """Everything that carries the tag."""
    PREFIX = "prefix"
    """Every target that begins so."""
    PATTERN = "pattern"
    """Every target that matches as a whole; ``*`` stands for any octets, "/" included."""
    ALL = "all"
    """Everything (on the host, where one is named)."""


@dataclass(frozen=True, slots=True)
class PurgeOrder:
    """``value`` is the target, tag, prefix or pattern ("" for all); ``host`` None means any host.

    ``targets`` are further forms of the target of a purge by URL (keys drop ignored parameters). Raises
    ValueError, one clear line, for what cannot be carried out.
    """

    kind: PurgeKind
    value: str = ""
    host: str | None = None
    soft: bool = False
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", PurgeKind(self.kind))
        if self.kind is PurgeKind.ALL:
            object.__setattr__(self, "value", "")
        elif not self.value:
            raise ValueError(f"purge by {self.kind.value}: the value is empty")
        if self.kind in {PurgeKind.PREFIX, PurgeKind.PATTERN} and len(octets(self.value)) > LONGEST:
            raise ValueError(f"purge by {self.kind.value}: longer than {LONGEST} octets")
        if self.host is not None and len(octets(self.host)) > LONGEST_HOST:
            raise ValueError(f"purge: the host is longer than {LONGEST_HOST} octets")
        if len(self.targets) > MOST_TARGETS:
            raise ValueError(f"purge by url: more than {MOST_TARGETS} targets")


@dataclass(frozen=True, slots=True)
class NodeReceipt:
    """What one node has said: ``number`` is the newest purge that it has applied, ``at`` when it said so
    (seconds since 1970, by the clock of the store). ``said``: "ok"; "cut off", then it serves nothing from
    memory until it has caught up; or why it is not known to have purged."""

    name: str
    number: int
    at: float
    said: str

    @property
    def good(self) -> bool:
        return self.said in ("ok", "cut off")


@dataclass(frozen=True, slots=True)
class PurgeReceipt:
    """What was done. ``number`` is the purge's own; ``objects`` and ``octets`` are None where nobody
    counted (a purge costs the same however many there are; ``count`` counts). ``layers`` says for each
    layer "ok" or what went wrong: where it is not "ok", that layer has not been told yet."""

    number: int
    kind: PurgeKind
    soft: bool
    objects: int | None = None
    octets: int | None = None
    layers: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[NodeReceipt, ...] = ()
    """Of many nodes: each with what it has said."""

    @property
    def complete(self) -> bool:
        told = all(said == "ok" for said in self.layers.values())
        return told and all(node.good for node in self.nodes)


def octets(text: str) -> bytes:
    """Any text as octets, reversibly: targets may hold what is not UTF-8."""
    return text.encode("utf-8", "surrogatepass")


def text(data: bytes) -> str:
    """What ``octets`` made octets of. Raises UnicodeDecodeError where it was not that."""
    return data.decode("utf-8", "surrogatepass")


def matches(order: PurgeOrder, entry: Entry) -> bool:
    """Whether the order concerns the entry (whatever its number)."""
    return concerns(order, entry.host, entry.target, entry.tags)


def concerns(order: PurgeOrder, host: str, target: str, tags: Iterable[str]) -> bool:
    """``matches`` for who has no entry at hand, only its coordinates."""
    if order.host is not None and host not in ("", order.host):
        return False
    match order.kind:
        case PurgeKind.URL:
            return target == order.value or target in order.targets
        case PurgeKind.TAG:
            return order.value in tags
        case PurgeKind.PREFIX:
            return target.startswith(order.value)
        case PurgeKind.PATTERN:
            return glob(order.value, target)
        case PurgeKind.ALL:
            return True


def glob(pattern: str, text: str) -> bool:
    """Whether the whole text matches; ``*`` is the only special character.

    Each part is looked for once, leftmost first: with nothing but ``*`` between the parts that finds a
    match if there is one.
    """
    first, *parts = pattern.split("*")
    if not parts:
        return text == first
    last = parts.pop()
    end = len(text) - len(last)
    position = len(first)
    if end < position or not text.startswith(first) or not text.endswith(last):
        return False
    for part in parts:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
