"""The octets of an answer from a mould: rendered once, with gaps for each answer's own values.

Rules of this file:

- respond.py renders: a model answer with marks where the values go, and what is between the marks is kept.
  So a cast's head is to the octet what respond.py would have made of the same answer.
- What the client gets in a coding, and what an operator's settings make different each time, is not cast:
  None, and the ordinary way is gone.
- Kept with the mould, by what the head depends on; of ends of heads MOST_TAILS for each.
"""

from __future__ import annotations

from dataclasses import replace
from secrets import token_hex
from typing import TYPE_CHECKING, final

from edgeproxy.front.respond import whole
from edgeproxy.front.template import Template
from edgeproxy.policy.coding import choose_coding, compressible
from edgeproxy.policy.decisions import Form, Serve

if TYPE_CHECKING:
    from edgeproxy.engine.mould import Cast
    from edgeproxy.front.respond import Responder
    from edgeproxy.observe.trace import Trace

MOST_TAILS = 64
MOST_HEADS = 8

_Tail = tuple[bytes, ...] | None
"""The pieces between which milliseconds are told: none, the origin's, or the shared store's and the origin's.
None where the head cannot be cast."""

_ORIGIN = b"origin;dur="
_L2 = b"l2;dur="
_MODEL = 7777.77777
"""Seconds, in place of those that were spent."""
_MODEL_SAID = b"%.2f" % (_MODEL * 1000)
_UNKNOWN = (b"",)


@final
class _Head:
    """``compressible``: who accepts a coding gets another head."""

    __slots__ = ("compressible", "filled", "tails")

    def __init__(self, template: Template, *, compressible: bool) -> None:
        self.filled = template.filled
        self.compressible = compressible
        self.tails: dict[object, _Tail] = {}


@final
class Casts:
    """One worker's."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder
        self._each_differs = responder.sends_response_time

    def head(self, cast: Cast, trace: Trace, accepted: str | None) -> bytes | None:
        """The head, without Connection and the empty line. ``accepted``: the client's Accept-Encoding."""
        if self._each_differs or trace.queue_seconds:
            return None
        mould, entry, length = cast.mould, cast.entry, len(cast.body)
        compression = mould.rule.overrides.compression
        key = (self, length < compression.minimum)
        head = mould.heads.get(key)
        if head is None:
            if len(mould.heads) >= MOST_HEADS:
                mould.heads.clear()
            head = mould.heads[key] = self._rendered(cast)
        assert isinstance(head, _Head)  # noqa: S101
        if head.compressible and choose_coding(accepted, compression.codings):
            return None
        parts = head.filled(cast.values)
        # Straight from the origin: there is no age to tell, unless it came with one.
        ttl, age = trace.ttl, cast.age or None
        said = (
            # By identity: members of enums, which are dear to hash.
            id(trace.forwarded), id(trace.pass_reason), id(trace.not_stored),
            None if ttl is None else whole(ttl), age, trace.l2_seconds > 0,
        )  # fmt: skip
        tail = head.tails.get(said, _UNKNOWN)
        if tail is _UNKNOWN:
            if len(head.tails) >= MOST_TAILS:
                head.tails.clear()
            tail = head.tails[said] = self._tail(trace, age)
        if tail is None:
            return None
        framing = b"Content-Length: %d\r\n" % length
        if entry is not None:
            parts.append(framing)
        parts.append(tail[0])
        if len(tail) > 2:
            parts.append(b"%.2f" % (trace.l2_seconds * 1000))
            parts.append(tail[1])
        if len(tail) > 1:
            parts.append(b"%.2f" % (trace.origin_seconds * 1000))
            parts.append(tail[-1])
        if self._responder.sends_request_id:
            parts.append(b"X-Request-ID: %b\r\n" % trace.request_id.encode("latin-1"))
        if entry is None:
            parts.append(framing)
        trace.status = mould.known.status
        if entry is not None:
            trace.age = cast.age
        return b"".join(parts)

    def _rendered(self, cast: Cast) -> _Head:
        mould, entry, length = cast.mould, cast.entry, len(cast.body)
        rule, known = mould.rule, mould.known
        marks = [token_hex(12).encode() for _ in known.own]
        model = known.head(marks)
        if entry is None:
            octets = self._responder.stream_head(model, rule, "", length, shareable=False)
            headers = model.headers
        else:
            stored = mould.stored(marks, length)
            octets = self._responder.stored_head(stored, Serve(stored, 0, Form.FULL), rule, "")
            headers = stored.headers
        return _Head(
            Template(octets, marks),
            compressible=compressible(known.status, headers, rule.overrides.compression, length),
        )

    def _tail(self, trace: Trace, age: int | None) -> _Tail:
        model = replace(trace, origin_seconds=_MODEL, l2_seconds=_MODEL if trace.l2_seconds else 0.0)
        pieces = self._responder.stable_part(model, age).split(_MODEL_SAID)
        told = (_L2, _ORIGIN) if trace.l2_seconds else (_ORIGIN,)
        if len(pieces) == 1 or (
            len(pieces) == len(told) + 1
            and all(piece.endswith(name) for piece, name in zip(pieces, told, strict=False))
        ):
            return tuple(pieces)
        return None  # a rule of that name
