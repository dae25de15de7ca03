"""The two closed unions that the core answers with.

Rules of this file: each result carries exactly what the engine needs next, and nothing it could misuse.
``decide`` speaks before the origin is asked, ``conclude`` after it has answered or failed.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from edgeproxy.policy.head import EMPTY
from edgeproxy.value import value

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers, ResponseHead
    from edgeproxy.policy.stored import Stored
    from edgeproxy.policy.vocabulary import (
        Forwarded,
        NotStored,
        OriginFailure,
        PassReason,
        StaleReason,
        Unsatisfied,
    )


class Form(Enum):
    """Which form of the stored answer the client gets."""

    FULL = "full"
    NOT_MODIFIED = "not-modified"
    """304 (RFC 9110 §15.4.5)."""
    PARTIAL = "partial"
    """206, one part or several (§15.3.7)."""
    NOT_SATISFIABLE = "not-satisfiable"
    """416 (§15.5.17)."""


class Asked(Enum):
    """How much of the representation the origin was asked for."""

    WHOLE = "whole"
    PART = "part"
    """The one range that the client asked for."""
    REST = "rest"
    """What the stored part lacks of what the client asked for (RFC 9111 §3.3)."""


@value
class Serve:
    """Answer from the stored entry. ``ranges`` are [start, stop) octets of the identity representation;
    the stored body begins at its octet ``at``.

    ``coding`` is the coding to send ("" for the body as stored); a client may still get the stored body
    where the coded one is not made yet.
    """

    stored: Stored
    age: int
    form: Form = Form.FULL
    coding: str = ""
    ranges: tuple[tuple[int, int], ...] = ()
    at: int = 0


@value
class ServeStale:
    """Answer from the stale entry; with ``refresh``, have it refreshed in the background."""

    serve: Serve
    reason: StaleReason
    refresh: bool


@value
class Revalidate:
    """Ask the origin whether ``stored`` still holds, with these conditions (RFC 9111 §4.3.1)."""

    stored: Stored
    conditions: tuple[tuple[bytes, bytes], ...]
    reason: Forwarded
    asked: Asked = Asked.WHOLE
    span: str = ""


@value
class Fetch:
    """Ask the origin for an answer. ``stored`` is what there is to fall back on, or to complete, if anything.

    ``conditions`` are the fields of our own (Range, If-Range) with which it is ``asked``. ``span`` names the
    range that the answer is for, as part of what the flight is known by; "" where it is for the whole.
    """

    reason: Forwarded
    stored: Stored | None = None
    conditions: tuple[tuple[bytes, bytes], ...] = ()
    asked: Asked = Asked.WHOLE
    span: str = ""


@value
class Pass:
    """Forward as it is; neither store nor coalesce."""

    reason: PassReason
    forwarded: Forwarded


@value
class Unsatisfiable:
    """Nothing usable is stored and the request forbids asking (504)."""

    reason: Unsatisfied


Decision = Serve | ServeStale | Revalidate | Fetch | Pass | Unsatisfiable


@value
class OriginAnswer:
    """What came of asking: the head, and when the request left and the head arrived."""

    head: ResponseHead
    request_time: float
    response_time: float


@value
class Failed:
    """What came of asking: nothing usable."""

    failure: OriginFailure


@value
class Store:
    """Store this, once its body is complete (``stored.length`` is -1 while it is not known). ``withheld``
    are fields that are not stored, but sent to the one who asked (RFC 9111 §5.2.2.4, §5.2.2.7)."""

    stored: Stored
    withheld: Headers = EMPTY


@value
class Refresh:
    """The origin confirmed the entry: ``stored`` has the merged fields and the new freshness; ``withheld``
    as in Store."""

    stored: Stored
    withheld: Headers = EMPTY


@value
class Discard:
    """Deliver, but do not store. ``remember``: note the key as hit-for-miss. ``forget``: what is stored
    under the key is outdated by this answer and must not be used again (RFC 9111 §4.3.3, §4.3.5)."""

    reason: NotStored
    remember: bool
    forget: bool = False


@value
class Join:
    """The origin's 206 is what the stored part lacked: the octets of the stored body before ``before``, the
    new ones and those from ``after`` on are one answer with ``head``. ``size``: octets that the new ones must
    be; ``then``: what to do with it."""

    head: ResponseHead
    before: int
    after: int
    size: int
    then: Store | Discard


@value
class ServeStaleOnError:
    """Deliver the stored entry in place of the failure."""

    stored: Stored
    reason: StaleReason


@value
class Refetch:
    """The origin's 304 does not fit what is stored, or its 206 cannot be joined to it: ask once more, without
    conditions."""


@value
class GiveUp:
    """The origin failed and nothing may be served in its place. ``status``: what the client is told, where
    that is not the failure's own."""

    failure: OriginFailure
    status: int | None = None


Conclusion = Store | Refresh | Discard | Join | ServeStaleOnError | Refetch | GiveUp
