"""Answers that are here whole, as data: nothing is waited for, and no connection is behind them.

Rules of this file: a port, as base.py is. Times are ``clock.now()``, seconds since 1970.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from edgeproxy.origin.base import AnswerBody
    from edgeproxy.policy.head import ResponseHead
    from edgeproxy.policy.known import KnownHead


@final
class Here:
    """A body that has arrived: ``AnswerBody``, of which nothing is missing."""

    __slots__ = ("_data", "length")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length: int | None = len(data)

    def take_all(self) -> bytes | None:
        data, self._data = self._data, b""
        return data

    async def read(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def close(self) -> None:
        """There is nothing to give back."""


@final
class KnownReply:
    """``OriginReply`` whose ``known`` head is not put together, with its ``values``, before somebody asks;
    ``octets`` are its whole body."""

    __slots__ = ("_body", "_head", "known", "octets", "request_time", "response_time", "status", "values")

    def __init__(
        self, known: KnownHead, values: list[bytes], octets: bytes, request_time: float, response_time: float
    ) -> None:
        self.known = known
        self.values = values
        self.octets = octets
        self.request_time = request_time
        self.response_time = response_time
        self.status = known.status
        self._head: ResponseHead | None = None
        self._body: Here | None = None

    @property
    def head(self) -> ResponseHead:
        head = self._head
        if head is None:
            head = self._head = self.known.head(self.values)
        return head

    @property
    def body(self) -> AnswerBody:
        body = self._body
        if body is None:
            body = self._body = Here(self.octets)
        return body
