"""What the engine asks of an origin: Protocols, so that it knows no socket and no aiohttp.

Rules of this file: types only. The one error that may cross is OriginError.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

    from edgeproxy.policy.head import Headers, ResponseHead
    from edgeproxy.policy.vocabulary import OriginFailure


class OriginError(Exception):
    """The origin failed; ``failure`` says how, ``detail`` for the log only.

    ``status`` is what a client is told when nothing better can be served, ``retry_after`` when it may come
    back, in whole seconds.
    """

    def __init__(
        self, failure: OriginFailure, detail: str = "", status: int | None = None, *, retry_after: int = 1
    ) -> None:
        super().__init__(f"{failure.value}: {detail}" if detail else failure.value)
        self.failure = failure
        self.detail = detail
        self.status = failure.status if status is None else status
        self.retry_after = retry_after


class Purpose(Enum):
    """For whom the origin is asked. All but CLIENT draw on the origin's budget; the last yields first."""

    CLIENT = "client"
    RETRY = "retry"
    REFRESH = "refresh"
    WARM = "warm"
    PREDICT = "predict"


@dataclass(frozen=True, slots=True)
class Forward:
    """A request as it goes to the origin: fields are final, except framing and Connection, which the
    origin client writes. ``body`` None: no body. ``length`` None with a body: chunked."""

    method: str
    target: str
    headers: Headers
    body: AsyncIterator[bytes] | None = None
    length: int | None = None
    content: bytes | None = None
    """The whole body, where it is here already; then ``body`` is None."""
    on_interim: Callable[[ResponseHead], None] | None = None
    """Called for each 1xx (other than 101) the origin sends first."""
    resent: bool = False
    """It was sent before on a connection that turned out dead: on a fresh one now, and not a third time."""
    upgrade: bool = False
    """Ask to go on as a WebSocket: the answer may be a 101, whose body is then a Tunnel."""
    read_timeout: float | None = None
    """Seconds between two pieces of the answer's body, 0 for any; None: the origin client's."""
    pool: str = "default"
    """Which origins are asked."""
    key: str = ""
    """By which one of them is chosen, where that goes by key."""
    purpose: Purpose = Purpose.CLIENT
    retry: str = "idempotent"
    """Which methods may be sent again: ``idempotent``, ``any`` or ``none``."""


class AnswerBody(Protocol):
    """The body of an origin's answer, read once, by one reader."""

    length: int | None
    """As announced by Content-Length; None when chunked or close-delimited."""

    def take_all(self) -> bytes | None:
        """The whole body if it is here already (the short way), else None and nothing is consumed."""

    async def read(self) -> bytes:
        """Some octets, b"" at the proper end. Raises OriginError when it breaks off: never a clean end."""

    def close(self) -> None:
        """Done with it: the connection is reused if the body was read to its end, else closed."""


class Tunnel(AnswerBody, Protocol):
    """The body of a 101: a connection that has left HTTP. ``close()`` ends it, taken over or not."""

    def take_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """From now on the connection is ``protocol``'s, but for connection_made: its transport, and what came
        behind the 101. Raises OriginError where it is lost already."""

    def lost(self, error: BaseException | None) -> None:
        """To be called by who took over, from its connection_lost."""


class OriginReply(Protocol):
    """``request_time`` and ``response_time``: when the request left and the head arrived, clock.now()."""

    @property
    def status(self) -> int: ...
    @property
    def head(self) -> ResponseHead: ...
    @property
    def body(self) -> AnswerBody: ...
    @property
    def request_time(self) -> float: ...
    @property
    def response_time(self) -> float: ...


class PromptListener(Protocol):
    """Who is told what came of a prompted request: one of these is called, once."""

    def answered(self, reply: OriginReply) -> None:
        """The head is here, and with it the whole body (``take_all``) or its beginning."""

    def goes_on(self, under_way: object) -> None:
        """What came is not the last word: the rest is ``Origin.go_on(under_way, ...)``'s."""

    def failed(self, error: OriginError, *, again: bool) -> None:
        """``again``: a kept connection was dead. It may go once more, on a new one (``Forward.resent``), and
        the origin's budget has been charged for that."""


class Route(Protocol):
    """What of a rule says where a request goes."""

    @property
    def origin(self) -> str:
        """As ``Forward.pool``."""

    @property
    def retry(self) -> str: ...
    @property
    def read_timeout(self) -> float | None: ...


class Prompted(Protocol):
    def abandon(self) -> None:
        """End the request; the listener is not called any more."""


class Origin(Protocol):
    def prompt(self, octets: bytes, listener: PromptListener, route: Route) -> Prompted | None:
        """Send a GET's head now, on an idle connection; None where that is not possible at once."""

    async def go_on(self, under_way: object, forward: Forward) -> OriginReply:
        """The final answer to a prompted request, which ``forward`` is, with what has come so far. Raises
        OriginError."""

    @property
    def authority(self) -> str:
        """For Host, where a request has none."""

    async def fetch(self, forward: Forward) -> OriginReply:
        """One request, one answer. Raises OriginError. Resends only idempotent requests, once, on a
        fresh connection, when a reused connection turned out dead before any octet of an answer."""
