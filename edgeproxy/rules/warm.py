"""``warm:`` of a rule file -> WarmUps, and what its keys mean together.

Rules of this file: exactly one of the keys that say when, exactly one of those that say what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeproxy.rules.document import Node, Sequence, describe
from edgeproxy.rules.keys import WARM
from edgeproxy.rules.kinds import WRONG
from edgeproxy.rules.model import WarmUp

if TYPE_CHECKING:
    from edgeproxy.rules.problems import Problems

MOST = 100
WHEN = ("every", "at")
WHAT = ("urls", "file", "sitemap", "most_wanted")


def read_warm_ups(node: Node, out: Problems) -> list[WarmUp]:
    """What is right of it; the rest is reported."""
    if not isinstance(node, Sequence):
        out.add(node, "warm", f"expected a list of warm-ups, got {describe(node)}")
        return []
    if len(node.items) > MOST:
        out.add(node, "warm", f"{len(node.items)} warm-ups; at most {MOST}")
        return []
    made = [_warm_up(item, f"warm[{i}]", out) for i, item in enumerate(node.items)]
    return [each for each in made if each is not None]


def _warm_up(node: Node, key: str, out: Problems) -> WarmUp | None:
    before = len(out)
    read = WARM.read(node, key, out)
    if read is WRONG or len(out) > before:
        return None
    for words, about in ((WHEN, "when"), (WHAT, "what")):
        given = [word for word in words if word in read]
        if len(given) != 1:
            out.add(
                node, key, f"expected one of {', '.join(words)}, which says {about}; got "
                f"{' and '.join(given) or 'none of them'}",
            )  # fmt: skip
    if "hosts" in read and "sitemap" not in read:
        out.add(node, key, "hosts says which other hosts a sitemap may name; here is no sitemap")
    if len(out) > before:
        return None
    return WarmUp(f"{out.file}:{node.line}", daily=read.pop("at", None), **read)
