"""A request whose answer is told by a call back, for who has no task to wait in.

Rules of this file:

- It goes out now or not at all: where no place is free or no connection idle, there is no prompted request,
  and who wants one waits for it in the ordinary way (client.py).
- The listener is called once: with the whole answer, with one that is still on its way, or with the failure.
  What is told is what ``OriginClient.fetch`` would have returned or raised: same checks, same counts.
- It never sends twice. Where that would be allowed, the failure says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from edgeproxy.origin.answer import Body, Reply
from edgeproxy.origin.arrived import Here, KnownReply
from edgeproxy.origin.base import OriginError
from edgeproxy.origin.framing import response_head
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.streams import StreamReader

    from edgeproxy.origin.base import PromptListener
    from edgeproxy.origin.connection import Connection
    from edgeproxy.origin.recognise import Heads
    from edgeproxy.policy.head import Headers


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
class Prompted:
    """One such request. ``abandon`` ends it unheard."""

    __slots__ = ("_client", "_connection", "_listener", "_read_timeout", "request_time")

    def __init__(
        self, client: _Client, connection: Connection, listener: PromptListener, read_timeout: float | None
    ) -> None:
        self._client = client
        self._connection: Connection | None = connection
        self._listener = listener
        self._read_timeout = read_timeout
        self.request_time = client.now()
        connection.listener = self

    def recognised(self, data: bytes) -> bool:
        """Take the answer in ``data``, the first to come, if its head is known and it is whole."""
        connection, client = self._connection, self._client
        found = client.heads.find(data)
        if found is None or connection is None:
            return False
        connection.listener = None
        self._connection = None
        connection.whole()
        client.release(connection, True)  # noqa: FBT003
        self._listener.answered(
            KnownReply(found.head, found.values, found.body, self.request_time, client.now())
        )
        return True

    def arrived(self, message: RawResponseMessage, payload: StreamReader) -> None:
        """The connection has the head of an answer, and maybe more of it."""
        connection, client = self._connection, self._client
        if connection is None:
            return
        connection.listener = None
        self._connection = None
        if message.code < 200:
            self._listener.interim((connection, message), self.request_time)
            return
        response_time = client.now()
        octets = connection.first_piece
        try:
            head, length = response_head(message, "GET", client.max_head)
            client.wait_for_body(connection, head.headers, self._read_timeout)
            connection.head_done(payload, length)
        except OriginError as error:
            client.count(error)
            client.release(connection, False)  # noqa: FBT003
            self._listener.failed(error, again=False)
            return
        body: Body | Here = Body(connection, payload, length, None, client.release, client.broke_off)
        if payload.is_eof() and (whole := body.take_all()) is not None:
            body = Here(whole)
            if octets is not None:
                client.heads.learn(octets, message, head)
        self._listener.answered(Reply(head, body, self.request_time, response_time))

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
