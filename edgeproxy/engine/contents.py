"""A request's content that a rule has in the key: read before the cache is asked, and kept to be sent again.

Rules of this file:

- Nothing is read but where the rule says so, and never more than its limit: what is longer goes on to the
  origin as it comes, with what was read of it in front.
- What is held is counted for as long as anybody holds it, a refresh in the background included: HELD octets
  for one worker. When they are used up, bodies pass unread, as without the rule.
- A body that breaks off or stops coming fails as one on its way to the origin does (REQUEST_BODY).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from weakref import finalize

from edgeproxy.engine.patience import in_time
from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure, PassReason
from edgeproxy.rules.content import body_policy, named

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edgeproxy.clock import Clock
    from edgeproxy.engine.exchange import Exchange
    from edgeproxy.rules.model import Rule

HELD = 16 * 1024 * 1024


class Content:
    """A request's whole content. ``finalize`` tells when nobody holds it any more."""

    __slots__ = ("__weakref__", "octets")

    def __init__(self, octets: bytes) -> None:
        self.octets = octets


class Contents:
    """One worker's. ``held`` is what is held now, in octets."""

    def __init__(self, clock: Clock, most: int = HELD, least: float = 0.0) -> None:
        self._clock = clock
        self._least = least
        self._most = most
        self.held = 0

    async def read(self, exchange: Exchange, rule: Rule) -> None:
        """Where the rule has the content in the key: read it, and give the exchange a head with its name or
        with the reason why it passes. Raises OriginError where the client does not bring it to its end."""
        head, body = exchange.head, exchange.body
        policy = body_policy(rule, head)
        if policy is None or body is None or rule.overrides.pass_:
            return
        if exchange.length is not None and exchange.length > policy.limit:
            exchange.head = replace(head, unkeyed=PassReason.CONTENT_TOO_LARGE)
            return
        pieces: list[bytes] = []
        try:
            refused = await self._gather(body, pieces, policy.limit)
        finally:
            octets = b"".join(pieces)
            self.held -= len(octets)
        if refused is not None:
            exchange.body = _in_front(octets, body)
            exchange.head = replace(head, unkeyed=refused)
            return
        content = Content(octets)
        self.held += len(octets)
        finalize(content, self._let_go, len(octets)).atexit = False
        exchange.body, exchange.content, exchange.length = None, content, len(octets)
        exchange.head = named(rule, head, octets)

    async def _gather(self, body: AsyncIterator[bytes], pieces: list[bytes], limit: int) -> PassReason | None:
        """Put the body's pieces into ``pieces``: all, or up to the one that gives a reason to stop."""
        size = 0
        coming = in_time(body, self._clock, self._least)
        try:
            async for piece in coming:
                pieces.append(piece)
                size += len(piece)
                self.held += len(piece)
                if size > limit:
                    return PassReason.CONTENT_TOO_LARGE
                if self.held > self._most:
                    return PassReason.CONTENT_MEMORY
        except OriginError:
            raise
        except Exception as error:
            # Whatever the client's side raises, it broke off.
            raise OriginError(OriginFailure.REQUEST_BODY, f"{type(error).__name__}: {error}") from error
        finally:
            await coming.aclose()
        return None

    def _let_go(self, octets: int) -> None:
        self.held -= octets


async def _in_front(octets: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield octets
    async for piece in rest:
        yield piece
