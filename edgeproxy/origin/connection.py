"""One keep-alive connection to the origin, on aiohttp's own client protocol. The audited page.

This is the only file of origin/ that touches aiohttp's insides, and these are all of them. An upgrade of
aiohttp has to pass ``verify_aiohttp()`` and the contract tests in tests/origin.

======================================  ==================================================================
``aiohttp.client_proto.ResponseHandler``  the class; ``__init__(loop)``, ``set_response_params``, ``read``,
                                        ``should_close``, ``force_close``, ``writing_paused``,
                                        ``transport``
``ResponseHandler.data_received``,      overridden, calling up: whether any octet came, the size of an
``connection_lost``, ``set_exception``,   unfinished head, a reset in a close-delimited body, the name of
``pause_reading``, ``resume_reading``     each failure, a silence that is ours and not the origin's
``._parser``                            None before the first request and after the end; kept from one
                                        answer to the next, which saves making it anew
``._skip_payload``                      whether that parser expects bodies (it does not after HEAD)
``._payload``                           body of the message being parsed
``._buffer``, ``._tail``                heads not yet read; octets that no parser was there for
``._reading_paused``                    the body's buffer is full
``._buffer_paused``                     what came behind a 101 has filled ``_tail``
``._drain_helper()``                    wait until the transport's write buffer has room
``StreamReader``                        ``readany``, ``read_nowait``, ``is_eof``, ``set_exception``
``RawResponseMessage``                  ``code reason version raw_headers should_close``
======================================  ==================================================================

Rules of this file:

- Whoever waits is told by ``set_exception``: always an OriginError, in the head RESET, in the body TRUNCATED.
- Octets after the end that Content-Length announces are nobody's: the answer is exact (RFC 9112 §6.3), and
  the connection is not used again.
- The parser takes an answer's last trailer field for a field of the next answer: behind chunks there is a new
  parser.
- One deadline at a time, moved by assigning a float. The timer behind it is lazy: it goes off at least as
  often as the shortest timeout, looks at the deadline, and is set again. A request costs no timer.
"""

from __future__ import annotations

import asyncio
import functools
import math
import re
import select
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import __version__ as installed
from aiohttp import http_parser
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EofStream, StreamReader

from edgeproxy.origin.base import OriginError
from edgeproxy.origin.framing import announced_end
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.http_parser import RawResponseMessage

    from edgeproxy.clock import Clock, Timer
    from edgeproxy.origin.prompted import Prompted

SUPPORTED = ((3, 14, 5), (3, 15))
"""From, and below."""

_DUE = 1e-6
"""Seconds that rounding may take from a timer."""
_OCTETS = re.compile(r":? b['\"]")
"""Where what aiohttp says of a malformed message begins to quote it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and octets."""

    first_byte_timeout: float = 10.0
    """From the request being sent to the head being complete."""
    read_timeout: float = 30.0
    """Between two pieces of a body, and for the origin to take more of a request's body."""
    idle_timeout: float = 30.0
    """Kept for reuse so long: less than the 60 s after which common origins close."""
    max_head: int = 65_536
    """Octets of an answer's head."""
    buffer: int = 65_536
    """Of a body: reading pauses at twice so many octets."""


class Connection(ResponseHandler):
    """States: connected, ``begin()``, head read, body read to its end or not, then reused or closed."""

    # Not for memory: more than thirty attributes in one __dict__ would make every access to any of them slow.
    __slots__ = (
        "_clock",
        "_due",
        "_due_failure",
        "_head_octets",
        "_in_head",
        "_limits",
        "_on_lost",
        "_pieces",
        "_poll",
        "_surplus",
        "_trailers",
        "_watch",
        "_watch_every",
        "answered",
        "failure",
        "listener",
        "of_age",
        "silence",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        limits: Limits,
        on_lost: Callable[[Connection], None],
    ) -> None:
        super().__init__(loop)
        self.answered = False  # some octet came since the request was begun
        self.failure: OriginError | None = None
        self.listener: Prompted | None = None
        """Who is told of the next head, where nobody waits for it in ``read_head``."""
        self._clock = clock
        self._limits = limits
        self.silence = limits.read_timeout  # seconds, of the exchange under way
        self.of_age = math.inf  # clock.monotonic() from when on it is not used again
        self._on_lost = on_lost
        self._in_head = False
        self._head_octets = 0
        self._pieces: list[bytes] = []  # of the head, as they came
        self._surplus = False  # dropped before the parser saw it
        self._trailers = False  # there may have been some, and the parser may still have the last of them
        self._due = math.inf
        self._due_failure: OriginFailure | None = None
        self._watch: Timer | None = None
        self._poll: select.poll | None = None
        self._watch_every = min(limits.first_byte_timeout, limits.read_timeout, limits.idle_timeout)

    # -- one exchange -------------------------------------------------------------------------------

    def begin(self, head: bytes, *, skip_body: bool, deadline: bool) -> None:
        """Send a request's head. ``skip_body``: the answer to HEAD has none, whatever it says."""
        if self._parser is None or self._trailers or self._skip_payload is not skip_body:
            self._begin_parsing(skip_body)
        self.answered = False
        self.silence = self._limits.read_timeout
        self._in_head = True
        self._head_octets = 0
        self._pieces.clear()
        if deadline:
            self.expect_head()
        transport = self.transport
        if transport is None:
            raise OriginError(OriginFailure.RESET, "closed before the request")
        transport.write(head)

    def _begin_parsing(self, skip_body: bool) -> None:  # noqa: FBT001
        self._trailers = False
        self.set_response_params(
            skip_payload=skip_body,
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=self._limits.buffer,
            max_line_size=self._limits.max_head,
            max_field_size=self._limits.max_head,
            max_headers=512,
        )

    async def read_head(self) -> tuple[RawResponseMessage, StreamReader]:
        """The next message, 1xx included. Raises OriginError."""
        try:
            return await self.read()
        except EofStream:
            raise self.failure or OriginError(OriginFailure.RESET) from None

    def head_done(self, payload: StreamReader, length: int | None) -> None:
        """From here on it is the body that is waited for. Raises OriginError as ``refuse_extra`` does."""
        self._in_head = False
        self._trailers = length is None
        self._pieces.clear()
        if payload.is_eof():
            self._due = math.inf
            self.refuse_extra(payload, length)
        else:
            self._expect(self.silence, OriginFailure.READ_TIMEOUT)

    def whole(self) -> None:
        """An answer was recognised (recognise.py): it is here to its end, and the parser need not see it."""
        self._in_head = False
        self._due = math.inf

    @property
    def first_piece(self) -> bytes | None:
        """What came of the answer, if it came in one piece."""
        return self._pieces[0] if len(self._pieces) == 1 else None

    def switched(self) -> None:
        """A 101 was read: what comes from now on is no HTTP, and is kept (within aiohttp's bounds) until
        somebody takes over."""
        self._in_head = False
        self._due = math.inf

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes]:
        """After ``switched()``: see ``Tunnel.take_over``."""
        transport = self.transport
        if transport is None or transport.is_closing():
            raise OriginError(OriginFailure.RESET, "closed behind its 101")
        early, self._tail = self._tail, b""
        transport.set_protocol(protocol)
        if self._buffer_paused:
            transport.resume_reading()
        return transport, early

    def has_extra(self) -> bool:
        """More came than the one message that was asked for."""
        failure = self.failure
        return bool(
            self._surplus
            or self._buffer
            or self._tail
            or (failure is not None and failure.failure is OriginFailure.BAD_RESPONSE)
        )

    def refuse_extra(self, payload: StreamReader, length: int | None) -> None:
        """Raise OriginError(BAD_RESPONSE) where something follows a body that has ended, unless
        Content-Length said where: then the body is what it is."""
        if not length and payload.is_eof() and self.has_extra():
            raise OriginError(OriginFailure.BAD_RESPONSE, "octets after the end of the message")

    def body_failure(self) -> OriginError:
        """Why the body did not come to its end."""
        failure = self.failure
        if failure is None or failure.failure is OriginFailure.RESET:
            return OriginError(OriginFailure.TRUNCATED, failure.detail if failure is not None else "")
        return failure

    @property
    def reusable(self) -> bool:
        transport = self.transport
        return (
            transport is not None
            and not transport.is_closing()
            and not self.should_close
            and self.failure is None
            and not self._buffer
        )

    def rest(self) -> None:
        """Between two requests: forget the last body, expire when idle for too long."""
        self._payload = None
        self._expect(self._limits.idle_timeout, None)

    def stirs(self) -> bool:
        """Octets or the connection's end have arrived while it was idle, and the loop has not seen them."""
        poll = self._poll
        if poll is None:
            transport = self.transport
            sock = transport.get_extra_info("socket") if transport is not None else None
            if sock is None:
                return True
            poll = self._poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def drain(self) -> bool:
        """Wait for room in the write buffer, ``read_timeout`` at most. False: the connection was lost."""
        if self.writing_paused:
            if self._in_head:
                self._expect(self._limits.read_timeout, OriginFailure.READ_TIMEOUT)
            try:
                await self._drain_helper()
            except ConnectionError:
                return False
            self.wait_for_client()
        return self.transport is not None and not self.transport.is_closing()

    def wait_for_client(self) -> None:
        """No deadline: the next piece of the request is the client's to send."""
        if self._in_head:
            self._due = math.inf

    def expect_head(self) -> None:
        """The request is out: the answer's head is due."""
        if self._in_head:
            self._expect(self._limits.first_byte_timeout, OriginFailure.FIRST_BYTE_TIMEOUT)

    def fail(self, error: OriginError) -> None:
        """End the connection; whoever waits for head or body gets this error."""
        self.set_exception(error)
        self.drop()

    def drop(self) -> None:
        """End the connection at once, unsent octets and all."""
        self._due = math.inf
        if self.transport is not None:
            self.transport.abort()

    # -- the deadline -------------------------------------------------------------------------------

    def _expect(self, seconds: float, failure: OriginFailure | None) -> None:
        self._due = self._clock.monotonic() + seconds
        self._due_failure = failure
        if self._watch is None:
            self._watch = self._clock.call_later(min(seconds, self._watch_every), self._look)

    def _look(self) -> None:
        self._watch = None
        now = self._clock.monotonic()
        if now >= self.of_age:
            self.force_close()  # once what is under way has ended
        if self.transport is None or self._due == math.inf:
            return
        left = self._due - now
        if left > _DUE:
            self._watch = self._clock.call_later(min(left, self._watch_every), self._look)
        elif self._due_failure is None:
            self.drop()
        elif self._in_head or (self._payload is not None and not self._payload.is_eof()):
            self.fail(OriginError(self._due_failure))
        else:  # all of the body is here; it is the reader that is slow
            self._due = math.inf

    # -- called by the transport and the parser -----------------------------------------------------

    def data_received(self, data: bytes) -> None:
        self.answered = True
        if self._in_head:
            listener = self.listener
            if listener is None or self._pieces:
                self.parse(data)
            elif (left := listener.take(data)) is not None:
                self.parse(left)
            return
        if self._due != math.inf and data:
            self._due = self._clock.monotonic() + self.silence
        super().data_received(data)

    def parse(self, data: bytes) -> None:
        """Read ``data``, of the head of an answer, and what follows it."""
        listener = self.listener
        self._pieces.append(data)
        super().data_received(data)
        if self._buffer:
            if listener is not None:
                listener.arrived(*self._buffer.popleft()[0])
        else:  # not one message yet
            self._head_octets += len(data)
            if self._head_octets > self._limits.max_head and self.failure is None:
                self.fail(OriginError(OriginFailure.BAD_RESPONSE, "head too large"))

    def soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call back in the loop's next turn."""
        self._loop.call_soon(callback, *args)

    def pause_reading(self) -> None:
        self._due = math.inf
        super().pause_reading()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002
        # The reader calls this after every piece. Where nothing was paused there is nothing to do.
        if self._reading_paused:
            self._expect(self.silence, OriginFailure.READ_TIMEOUT)
            super().resume_reading(resume_parser)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:  # noqa: ARG002
        if self._in_head and self._pieces and isinstance(exc, HttpProcessingError) and self._read_exactly():
            return
        # The first failure is the one that counts; what follows from it only repeats it.
        failure = self.failure
        if failure is None:
            failure = self.failure = _named(exc)
        super().set_exception(failure)
        payload = self._payload
        if payload is not None and not payload.is_eof():
            payload.set_exception(self.body_failure())
        if self.listener is not None and not self._buffer:
            self.listener.failed(failure)

    def _read_exactly(self) -> bool:
        """The parser stumbled over octets after the end of a whole answer, and has lost that too: read it
        again, up to its end. False: that is not what was wrong. The parser has closed the connection."""
        octets = b"".join(self._pieces)
        self._pieces.clear()  # once
        end = announced_end(octets)
        if self._buffer or self._skip_payload or end is None or len(octets) <= end:
            return False
        self._begin_parsing(skip_body=False)
        super().data_received(octets[:end])
        self._surplus = bool(self._buffer)
        return self._surplus

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.listener is not None:
            self.listener.let_parse()
        if exc is not None:
            # A reset never ends a body well. The parser would take it for the end of a close-delimited one.
            payload = self._payload
            if payload is not None and not payload.is_eof():
                self.set_exception(OriginError(OriginFailure.RESET, str(exc)))
        self._due = math.inf
        self._poll = None
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        super().connection_lost(exc)
        self._on_lost(self)


def _named(error: BaseException) -> OriginError:
    if isinstance(error, OriginError):
        return error
    if isinstance(error, HttpProcessingError):
        # What is wrong, in a line; the octets that follow may be anything, somebody's cookie too.
        return OriginError(OriginFailure.BAD_RESPONSE, _OCTETS.split(" ".join(error.message.split()))[0])
    return OriginError(OriginFailure.RESET, str(error))


_INSTANCE = [
    "_parser",
    "_skip_payload",
    "_payload",
    "_buffer",
    "_tail",
    "_reading_paused",
    "_buffer_paused",
    "_loop",
    "_exception",
    "transport",
]
_METHODS = [
    "set_response_params",
    "read",
    "should_close",
    "force_close",
    "writing_paused",
    "data_received",
    "connection_lost",
    "set_exception",
    "pause_reading",
    "resume_reading",
    "_drain_helper",
]
_PAYLOAD = ["readany", "read_nowait", "is_eof", "set_exception"]
_MESSAGE = ["code", "reason", "version", "raw_headers", "should_close"]


@functools.cache
def verify_aiohttp() -> None:
    """Refuse to run on an aiohttp whose insides are not those that this file was written for.

    Raises RuntimeError naming what is different.
    """
    found = installed
    numbers = tuple(int(n) for n in found.split(".")[:3] if n.isdigit())
    low, below = SUPPORTED
    if not low <= numbers < below:
        raise RuntimeError(f"aiohttp {found} is installed; the origin client needs >=3.14.5,<3.15")
    parser: Any = http_parser.HttpResponseParser
    if parser.__module__ != "aiohttp._http_parser":
        raise RuntimeError("aiohttp runs without its C parser (AIOHTTP_NO_EXTENSIONS, or a wheel without it)")
    loop = asyncio.new_event_loop()
    try:
        handler = ResponseHandler(loop)
        missing = [n for n in _INSTANCE if not hasattr(handler, n)]
        missing += [n for n in _METHODS if not hasattr(ResponseHandler, n)]
        missing += [n for n in _PAYLOAD if not hasattr(StreamReader, n)]
        missing += [n for n in _MESSAGE if not hasattr(http_parser.RawResponseMessage, n)]
        taken = [n for n in Connection.__slots__ if hasattr(handler, n)]
    finally:
        loop.close()
    if missing or taken:
        raise RuntimeError(
            f"aiohttp {found} differs inside: missing {missing or 'nothing'}, new {taken or 'nothing'}"
        )
