"""A request whose answer is told by a call back, for who has no task to wait in.

Rules of this file:

- It goes out now or not at all: where no place is free or no connection idle, there is no prompted request,
  and who wants one waits for it in the ordinary way (client.py).
- The listener is called once: with the whole answer, with one that is still on its way, or with the failure.
  What is told is what ``OriginClient.fetch`` would have returned or raised: same checks, same counts.
- Many origins send head and body one after the other. A short body is waited for, for TURNS turns of the
  loop: under load it is there by then, and the answer is told whole.
- It never sends twice. Where that would be allowed, the failure says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, final

from edgeproxy.origin.answer import Body, Reply
from edgeproxy.origin.arrived import Here, KnownReply
from edgeproxy.origin.base import OriginError
from edgeproxy.origin.framing import response_head
from edgeproxy.origin.recognise import SHORT
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

    from edgeproxy.origin.base import OriginReply
    from edgeproxy.origin.connection import Connection
    from edgeproxy.origin.recognise import Heads
    from edgeproxy.policy.head import Headers


TURNS = 2
"""What arrives while the loop looks at its sockets is read between two turns."""


class _Client(Protocol):
    """What of OriginClient this needs."""

    @property
    def max_head(self) -> int: ...
    @property
    def heads(self) -> Heads: ...
    def now(self) -> float: ...
    def release(self, connection: Connection, reuse: bool) -> None: ...  # noqa: FBT001
    def count(self, error: OriginError) -> None: ...
    def wait_for_body(self, connection: Connection, fields: Headers, read_timeout: float | None) -> None: ...
    def broke_off(self, error: OriginError) -> None: ...


@final
class Interim:
    """A request whose final answer is still to come: the last ``message`` was a 1xx."""

    __slots__ = ("connection", "message", "request_time")

    def __init__(self, connection: Connection, message: RawResponseMessage, request_time: float) -> None:
        self.connection = connection
        self.message = message
        self.request_time = request_time


class Listener(Protocol):
    """Who is told what came of it: one of these is called, once."""

    def answered(self, reply: OriginReply) -> None:
        """The head is here, and with it the whole body (``take_all``) or its beginning."""

    def interim(self, interim: Interim) -> None:
        """A 1xx is here first: the rest is ``OriginClient.after_interim``'s."""

    def failed(self, error: OriginError, *, again: bool) -> None:
        """``again``: nothing of an answer came, and the connection was a kept one that was dead."""


@final
class Prompted:
    """One such request. ``abandon`` ends it unheard."""

    __slots__ = ("_client", "_connection", "_early", "_listener", "_read_timeout", "_turns", "request_time")

    def __init__(
        self, client: _Client, connection: Connection, listener: Listener, read_timeout: float | None
    ) -> None:
        self._client = client
        self._connection: Connection | None = connection
        self._listener = listener
        self._read_timeout = read_timeout
        self._early = b""
        """An answer with a known head, as far as it has come: the parser has not seen it."""
        self._turns = TURNS
        self.request_time = client.now()
        connection.listener = self

    def take(self, data: bytes) -> bytes | None:
        """An answer begins with ``data``, or goes on with it: what the parser is to read now; None where the
        head is known, and the answer is whole or will be in a moment."""
        connection, client = self._connection, self._client
        early, self._early = self._early, b""
        if early:
            data = early + data
        found = client.heads.find(data)
        if found is None or connection is None:
            return data
        if found.missing:
            if early:
                return data
            self._early = data
            connection.soon(self._turn)
            return None
        connection.listener = None
        self._connection = None
        connection.whole()
        client.release(connection, True)  # noqa: FBT003
        self._listener.answered(
            KnownReply(found.head, found.values, found.body, self.request_time, client.now())
        )
        return None

    def _turn(self) -> None:
        if not self._early or self._connection is None:
            return
        self._turns -= 1
        if self._turns:
            self._connection.soon(self._turn)
        else:
            self.let_parse()

    def let_parse(self) -> None:
        """Wait no longer for the rest of an answer."""
        connection, early, self._early = self._connection, self._early, b""
        if early and connection is not None:
            connection.parse(early)

    def arrived(self, message: RawResponseMessage, payload: StreamReader) -> None:
        """The connection has the head of an answer, and maybe more of it."""
        connection, client = self._connection, self._client
        if connection is None:
            return
        connection.listener = None
        if message.code < 200:
            self._connection = None
            self._listener.interim(Interim(connection, message, self.request_time))
            return
        response_time = client.now()
        octets = connection.first_piece
        try:
            head, length = response_head(message, "GET", client.max_head)
            client.wait_for_body(connection, head.headers, self._read_timeout)
            connection.head_done(payload, length)
        except OriginError as error:
            self._connection = None
            client.count(error)
            client.release(connection, False)  # noqa: FBT003
            self._listener.failed(error, again=False)
            return
        body = Body(connection, payload, length, None, client.release, client.broke_off)
        reply = Reply(head, body, self.request_time, response_time)
        if length is not None and 0 < length <= SHORT and not payload.is_eof():
            connection.soon(self._later, TURNS - 1, reply, payload, message, octets)
        else:
            self._tell(reply, payload, message, octets)

    def _later(self, turns: int, reply: Reply, payload: StreamReader, *rest: Any) -> None:
        connection = self._connection
        if connection is None:
            return
        if turns and not payload.is_eof():
            connection.soon(self._later, turns - 1, reply, payload, *rest)
        else:
            self._tell(reply, payload, *rest)

    def _tell(
        self, reply: Reply, payload: StreamReader, message: RawResponseMessage, octets: bytes | None
    ) -> None:
        self._connection = None
        if payload.is_eof() and (whole := reply.body.take_all()) is not None:
            reply.body = Here(whole)
            if octets is not None:
                self._client.heads.learn(octets, message, reply.head)
        self._listener.answered(reply)

    def failed(self, error: OriginError) -> None:
        """The connection broke before the head of an answer."""
        connection = self._connection
        if connection is None:
            return
        again = error.failure is OriginFailure.RESET and not connection.answered
        self._leave(connection)
        if not again:
            self._client.count(error)
        self._listener.failed(error, again=again)

    def abandon(self) -> None:
        """Nobody wants the answer any more."""
        if self._connection is not None:
            self._leave(self._connection)

    def _leave(self, connection: Connection) -> None:
        connection.listener = None
        self._connection = None
        self._client.release(connection, False)  # noqa: FBT003
