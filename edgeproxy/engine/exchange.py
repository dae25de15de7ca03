"""One client's request and what comes of it, as the engine and the front hand it to each other.

Rules of this file: data only. The front makes the Exchange and sends the Answer; the engine makes neither
bytes nor sockets.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edgeproxy.origin.base import Purpose
from edgeproxy.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from edgeproxy.engine.contents import Content
    from edgeproxy.observe.trace import Trace
    from edgeproxy.policy.decisions import Serve
    from edgeproxy.policy.head import RequestHead, ResponseHead
    from edgeproxy.rules.model import Rule
    from edgeproxy.store.entry import Entry


class Upgrade(Protocol):
    """A client that asks to go on as a WebSocket, if the origin does."""

    def admit(self, rule: Rule) -> FromEdge | None:
        """Take a place for it under ``rule``; the refusal where there is none."""

    def leave(self) -> None:
        """Give the place back, if one was taken."""


@dataclass(slots=True)
class Exchange:
    """``body`` None: the request has none; ``length`` its Content-Length, None when chunked. ``client``: what
    the origin is told in X-Forwarded-For, an address or several.

    ``on_vanish`` is set by the engine while the client's leaving should end what is under way; the front
    calls it when the connection is lost.
    """

    head: RequestHead
    trace: Trace
    body: AsyncIterator[bytes] | None = None
    length: int | None = None
    content: Content | None = None
    """The whole body, where a rule has it in the key (contents.py); then ``body`` is None."""
    client: str = ""
    forwarded: str = ""
    """What it is told in Forwarded, where that is known already."""
    upgrade: Upgrade | None = None
    on_interim: Callable[[ResponseHead], None] | None = None
    on_vanish: Callable[[], object] | None = None
    vanished: bool = False
    purpose: Purpose = Purpose.CLIENT

    def vanish(self) -> None:
        self.vanished = True
        if self.on_vanish is not None:
            self.on_vanish()

    def leave_with_client(self) -> None:
        """From now on the client's leaving cancels the task that is answering it."""
        task = asyncio.current_task()
        if task is not None:
            self.on_vanish = task.cancel
            if self.vanished:
                task.cancel()


class Reader(Protocol):
    """A body on its way: ``length`` in octets, or None where it is not known beforehand."""

    length: int | None

    def take_all(self) -> bytes | None:
        """The whole body where it is here already, else None and nothing is consumed."""

    async def read(self) -> bytes:
        """Some octets, b"" at the proper end. Raises OriginError where it broke off."""

    def close(self) -> None: ...


@value
class FromEntry:
    """A whole stored answer (or one that could have been stored) in the form that ``serve`` says."""

    entry: Entry
    serve: Serve
    rule: Rule


@value
class FromStream:
    """An answer on its way. ``shareable``: it is being stored, so the rule's client Cache-Control holds."""

    head: ResponseHead
    body: Reader
    rule: Rule
    shareable: bool
    age: int | None = None


@value
class FromEdge:
    """The edge answers by itself, with problem+json (RFC 9457)."""

    status: int
    title: str
    detail: str
    fields: tuple[tuple[str, str], ...] = ()


Answer = FromEntry | FromStream | FromEdge
