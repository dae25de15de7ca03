"""Header blocks that the lane has seen, and which of them mean the same.

Rules of this file:

- Browsers of one kind send hundreds of blocks that differ in what they call themselves and where they come
  from. Blocks that are equal but for fields that select nothing share one table: what one of them was
  answered, all are.
- A field selects nothing if it is in SELECTS_NOTHING (nothing in this program looks at one of them by itself,
  a test holds that), no rule asks for it (``rules``), and nothing stored varies on it. The first answer that
  varies on one of these makes it count from then on, and everything is forgotten.
- Only a block whose lines are beyond doubt is compared by its fields; any other is equal to itself alone.
- One that differs from an accepted block in such fields alone need not be parsed: each of them once, as
  ``name: value`` in visible ASCII and spaces, which the parser takes wherever it stands (``alike``). What is
  left is octet for octet what the parser has accepted. All others are compared after the parser (``like``).
- A block is learned when it is seen a second time, and so is what it comes to without those fields: clients
  whose every request differs cost a set entry each, and are known by the rest. Bounded: MOST_BLOCKS,
  MOST_TABLES, MOST_SEEN, MOST_OCTETS.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, TypeVar

from edgeproxy.front.seen import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgeproxy.rules.model import Rule

MOST_BLOCKS = 8192
MOST_TABLES = 2048
MOST_SEEN = 65_536
LONGEST = 8 * 1024
"""Octets of a block that is learned."""
MOST_OCTETS = 16 * 1024 * 1024
"""Of all blocks that are known."""
MOST_LINES = 64
"""Of a block that is not parsed: half of what the parser takes."""
_PLAIN = re.compile(rb"[ -~]*").fullmatch

SELECTS_NOTHING = frozenset({
    "user-agent", "referer", "accept-language", "cookie", "origin", "dnt", "priority", "save-data",
    "upgrade-insecure-requests", "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest",
    "sec-fetch-mode", "sec-fetch-site", "sec-fetch-user", "sec-gpc", "traceparent", "tracestate",
})  # fmt: skip

T = TypeVar("T")


class Blocks(Generic[T]):
    """``make`` gives an empty table. ``unsure``: fields that mean something from some peers alone; where one
    of them counts, its block is not learned."""

    def __init__(self, make: Callable[[], T], unsure: frozenset[str] = frozenset()) -> None:
        self._make = make
        self.known: dict[bytes, T] = {}
        """Block -> its table. The same dict until ``forget``."""
        self._tables: dict[bytes, T] = {}
        self._octets = 0
        """Of those that are known."""
        self._lines: set[bytes] = set()
        """What the names of the tables are made of. Fields that select nothing are looked at each time."""
        self._unsure = unsure
        self._seen = Seen(MOST_SEEN)
        self._of_rules: frozenset[str] = SELECTS_NOTHING
        """What counts because of the rules: everything, until they are known."""
        self._of_answers: set[str] = set()
        self._dropped: frozenset[bytes] = frozenset()
        self._doubted: tuple[bytes, ...] = ()
        """How lines begin that are in a block that is not learned."""

    def rules(self, rules: Iterable[Rule]) -> None:
        """From now on these are the rules. Forgets all tables; that a block has been seen has nothing to do
        with rules, so what is hot is back with its next request."""
        self._of_rules = frozenset(asked_for(rules))
        self._of_answers.clear()
        self._settle()
        self._drop_tables()

    def table(self, block: bytes, selecting: Sequence[Sequence[str]]) -> T | None:
        """The table for a block that has been answered with an entry of a key whose entries ``selecting``
        tells apart; None if it is not (yet) to be learned."""
        news = {name for names in selecting for name in names if name in SELECTS_NOTHING} - self._of_answers
        if news:
            self._of_answers |= news
            self._settle()
            self.forget()
        table = self.known.get(block)
        if table is not None:
            return table
        if len(block) > LONGEST:
            return None
        name = self._reduced(block)
        if self._doubted and any(b"\r\n" + begin in b"\r\n" + name.lower() for begin in self._doubted):
            return None
        table = self._tables.get(name)
        if table is None:
            if not self._seen.before(name):
                return None
            if len(self._tables) >= MOST_TABLES:
                self._drop_tables()
            table = self._tables[name] = self._make()
            self._lines.update(line for line in name.split(b"\r\n") if not self._selects_nothing(line))
        if name is block or self._seen.before(block):
            self._know(block, table)
        return table

    def _know(self, block: bytes, table: T) -> None:
        self._octets += len(block)
        if len(self.known) >= MOST_BLOCKS or self._octets > MOST_OCTETS:
            self.known.clear()  # their tables stay: each block is back after one parsed request
            self._octets = len(block)
        self.known[block] = table

    def alike(self, block: bytes) -> T | None:
        """The table of the blocks that mean the same as this one, which nobody has parsed, and which is no
        longer than a line may be. None: the parser has to see it."""
        lines = block.split(b"\r\n")
        if len(lines) > MOST_LINES:
            return None
        kept, names = [], []
        for line in lines:
            if line in self._lines:
                kept.append(line)
                continue
            name, colon, value = line.partition(b": ")
            name = name.lower()
            if not colon or name not in self._dropped or name in names or _PLAIN(value) is None:
                return None
            names.append(name)
        return self._named(b"\r\n".join(kept), block)

    def like(self, block: bytes) -> T | None:
        """The table of the blocks that mean the same as this one, which the parser has accepted too."""
        if len(block) > LONGEST:
            return None
        return self._named(self._reduced(block), block)

    def _named(self, name: bytes, block: bytes) -> T | None:
        """The table of that name, for a block that comes to it."""
        table = self._tables.get(name)
        if table is not None and self._seen.before(block):
            self._know(block, table)
        return table

    def forget(self) -> None:
        """All blocks and tables."""
        self._drop_tables()
        self._seen.clear()

    def _drop_tables(self) -> None:
        self.known.clear()
        self._octets = 0
        self._tables.clear()
        self._lines.clear()

    def _settle(self) -> None:
        counting = self._of_rules | self._of_answers
        self._dropped = frozenset(name.encode() for name in SELECTS_NOTHING - counting)
        self._doubted = tuple(b"%b:" % name.encode() for name in sorted(self._unsure & counting))

    def _reduced(self, block: bytes) -> bytes:
        """The block without the fields that select nothing."""
        lines = block.split(b"\r\n")
        if block.count(b"\r") != len(lines) - 1 or block.count(b"\n") != len(lines) - 1:
            return block
        kept = []
        for line in lines:
            if line[:1] in (b" ", b"\t"):
                return block  # the line before goes on
            if not self._selects_nothing(line):
                kept.append(line)
        return b"\r\n".join(kept)

    def _selects_nothing(self, line: bytes) -> bool:
        return line.partition(b":")[0].lower() in self._dropped


def asked_for(rules: Iterable[Rule]) -> set[str]:
    """The request fields, in lower case, that what these rules say may depend on."""
    names: set[str] = set()
    for rule in rules:
        names.update(condition.name.lower() for condition in rule.match.headers)
        names.update(name.lower() for name in rule.key.headers)
        names.update(name.lower() for name in rule.overrides.normalise)
        if rule.match.cookies or rule.key.cookies:
            names.add("cookie")
    return names
