"""An origin's answer: its head, and its body as one reader reads it.

Rules of this file:

- The body ends well (b"") only when its framing says so; in every other case the read raises OriginError.
  What follows its end makes it an error too, unless Content-Length said where the end is.
- The connection and the place at the origin are given back as soon as the end is seen, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeproxy.origin.base import OriginError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.streams import StreamReader

    from edgeproxy.origin.base import AnswerBody
    from edgeproxy.origin.connection import Connection
    from edgeproxy.origin.upload import Upload
    from edgeproxy.policy.head import ResponseHead

    Release = Callable[[Connection, bool], None]


class Body:
    """``AnswerBody`` of origin/base.py. ``length`` is 0 where there can be no body (HEAD, 204, 304)."""

    __slots__ = ("_connection", "_error", "_on_failure", "_payload", "_release", "_upload", "length")

    def __init__(
        self,
        connection: Connection,
        payload: StreamReader,
        length: int | None,
        upload: Upload | None,
        release: Release,
        on_failure: Callable[[OriginError], None],
    ) -> None:
        self._connection: Connection | None = connection
        self._payload = payload
        self.length = length
        self._upload = upload
        self._release = release
        self._on_failure = on_failure
        self._error: OriginError | None = None

    def take_all(self) -> bytes | None:
        """The whole rest of the body if it is here, else None and nothing is consumed."""
        connection, payload = self._connection, self._payload
        if connection is None or not payload.is_eof() or payload.exception() is not None:
            return None
        data = payload.read_nowait()
        self._end(connection)
        return data

    async def read(self) -> bytes:
        """Some octets, b"" at the end.

        Raises OriginError: TRUNCATED, READ_TIMEOUT, BAD_RESPONSE, REQUEST_BODY.
        """
        connection = self._connection
        if connection is None:
            if self._error is not None:
                raise self._error
            return b""
        try:
            data = await self._payload.readany()
        except Exception as cause:  # (aiohttp's many ways of saying that it broke off)
            raise self._broken(connection, connection.body_failure()) from cause
        if data:
            return data
        try:
            connection.refuse_extra(self._payload, self.length)
        except OriginError as error:
            raise self._broken(connection, error) from None
        self._end(connection)
        return b""

    def close(self) -> None:
        """Done with it. A body that is here to its end, read or not, lets the connection be reused."""
        connection = self._connection
        if connection is None:
            return
        if self._payload.is_eof() and self._payload.exception() is None:
            self._end(connection)
        else:
            self._leave(connection, reuse=False)

    def _end(self, connection: Connection) -> None:
        upload = self._upload
        self._leave(connection, reuse=upload is None or upload.done)

    def _broken(self, connection: Connection, error: OriginError) -> OriginError:
        self._error = error
        self._on_failure(error)
        self._leave(connection, reuse=False)
        return error

    def _leave(self, connection: Connection, *, reuse: bool) -> None:
        self._connection = None
        if self._upload is not None:
            self._upload.stop()
            self._upload = None
        self._release(connection, reuse)


@dataclass(slots=True)
class Reply:
    """``OriginReply`` of origin/base.py; times are ``clock.now()``, seconds since 1970."""

    head: ResponseHead
    body: AnswerBody
    request_time: float
    response_time: float

    @property
    def status(self) -> int:
        return self.head.status
