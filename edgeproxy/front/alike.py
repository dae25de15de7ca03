"""Heads of answers that are packed: rendered once for all that are alike, filled with each one's values.

Rules of this file:

- respond.py renders: a model answer with marks where an answer's own values go, and what is between the marks
  is kept. So a head from here is to the octet what respond.py would have made of the same answer.
- Only for what a plain request is given whole and as it is stored: where the client gets a coding, or where
  more than the usual values are each answer's own, there is no head, and the ordinary way is gone.
- Bounded: MOST heads. One holds its rule and its kind, so that another's are never found.
"""

from __future__ import annotations

from secrets import token_hex
from typing import TYPE_CHECKING, final

from edgeproxy.front.template import Template
from edgeproxy.policy.coding import choose_coding, compressible
from edgeproxy.policy.decisions import Form, Serve
from edgeproxy.store.packed import USUAL, Recipe, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgeproxy.front.respond import Responder
    from edgeproxy.rules.model import Rule
    from edgeproxy.store.entry import Entry
    from edgeproxy.store.packed import Kind

MOST = 1024


@final
class _Head:
    """``filled`` None: there is no head. ``compressible``: who accepts a coding gets another one."""

    __slots__ = ("compressible", "filled", "kind", "rule", "status")

    def __init__(
        self,
        kind: Kind,
        rule: Rule,
        filled: Callable[[Sequence[bytes]], list[bytes]] | None,
        *,
        compressible: bool,
    ) -> None:
        self.kind = kind
        self.rule = rule
        self.filled = filled
        self.compressible = compressible
        self.status = kind.frame[0]


class Alike:
    """One worker's."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._heads: dict[tuple[int, int, int, bool], _Head] = {}

    def head(self, entry: Entry, rule: Rule, accepted: str | None) -> tuple[bytes, int] | None:
        """The constant part of the head, without Content-Length, and the status. ``accepted``: the client's
        Accept-Encoding."""
        packed = entry.values()
        if packed is None:
            return None
        kind, row, values = packed
        length = len(entry.body)
        small = length < rule.overrides.compression.minimum
        key = (id(kind), row, id(rule), small)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= MOST:
                self._heads.clear()
            head = self._heads[key] = self._rendered(kind, row, rule, length)
        if head.filled is None or (
            head.compressible and choose_coding(accepted, rule.overrides.compression.codings)
        ):
            return None
        return b"".join(head.filled(values)), head.status

    def _rendered(self, kind: Kind, row: int, rule: Rule, length: int) -> _Head:
        names = [kind.names[at].lower() for at in kind.own]
        if not kind.has(row) or not names or not USUAL.issuperset(names) or len(set(names)) != len(names):
            return _Head(kind, rule, None, compressible=False)
        marks = [token_hex(12).encode() for _ in names]
        model = unpack(kind, Recipe(kind, row, kind.own).octets(0.0, 0.0, 0.0, 0.0, 0, marks), length)
        octets = self._responder.stored_head(model, Serve(model, 0, Form.FULL), rule, "")
        coded = compressible(model.status, model.headers, rule.overrides.compression, length)
        return _Head(kind, rule, Template(octets, marks).filled, compressible=coded)
