"""A request's body on its way to the origin, beside the answer that may come first.

Rules of this file:

- One piece in memory at a time: the next is asked for when the transport has room.
- A body that does not have the announced length, or whose client breaks off, ends the connection with
  REQUEST_BODY: the origin must never take a part for the whole.
- Sending goes on while the answer is read (both may be long). When the answer is done first, sending stops
  and the connection is not reused (RFC 9112 §9.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeproxy.origin.base import OriginError
from edgeproxy.policy.vocabulary import OriginFailure

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Coroutine

    from edgeproxy.origin.connection import Connection

    Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]


class Upload:
    """``length`` None: chunked."""

    def __init__(
        self, connection: Connection, body: AsyncIterator[bytes], length: int | None, spawn: Spawn
    ) -> None:
        self._connection = connection
        self._body = body
        self._left = length
        self.done = False
        """Every octet was handed to the transport."""
        self._task = spawn(self._run(), "origin upload")

    def stop(self) -> None:
        if not self._task.done():
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._send()
        except OriginError as error:
            self._connection.fail(error)
        except Exception as error:  # noqa: BLE001  (whatever the client's side raises, it broke off)
            self._connection.fail(OriginError(OriginFailure.REQUEST_BODY, f"{type(error).__name__}: {error}"))
        finally:
            end = getattr(self._body, "aclose", None)
            if end is not None:
                await end()

    async def _send(self) -> None:
        connection, left = self._connection, self._left
        connection.wait_for_client()
        async for piece in self._body:
            transport = connection.transport
            if transport is None or transport.is_closing():
                return
            if not piece:
                continue
            if left is None:
                transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n"))
            elif len(piece) > left:
                raise OriginError(OriginFailure.REQUEST_BODY, "longer than its Content-Length")
            else:
                left -= len(piece)
                transport.write(piece)
            if not await connection.drain():
                return  # its reader knows, and says how
        if left:
            raise OriginError(OriginFailure.REQUEST_BODY, f"{left} octets short of its Content-Length")
        transport = connection.transport
        if transport is None or transport.is_closing():
            return
        if left is None:
            transport.write(b"0\r\n\r\n")
        self.done = True
        connection.expect_head()
