"""Serves an admin application, on a TCP socket or on a path that only we can open.

Rules of this file: the one place that knows aiohttp's runner. A path is guarded by the permissions of the
directory that it is in, which is the caller's affair; it is unlinked at the end.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from edgeproxy.clock import Clock
    from edgeproxy.front.tls import Certificates

PATIENCE = 1.0
"""Seconds that answers under way get at the end."""


class AdminListener:
    """Give it one application and any number of sockets."""

    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=PATIENCE)
        self._paths: list[Path] = []
        self._certificates: Certificates | None = None
        self.port = 0
        """Of the TCP socket, once there is one."""

    async def serve(
        self, sock: socket.socket, certificates: Certificates | None = None, clock: Clock | None = None
    ) -> None:
        """Listen on a bound TCP socket, which then is ours to close. ``certificates``: speak TLS."""
        await self._begin()
        context = None
        if certificates is not None:
            self._certificates, context = certificates, certificates.context
            if clock is not None:
                certificates.watch(clock)
        await web.SockSite(self._runner, sock, ssl_context=context).start()
        self.port = int(sock.getsockname()[1])

    async def serve_path(self, path: Path) -> None:
        """Listen on a new Unix socket. Raises OSError."""
        await self._begin()
        await web.UnixSite(self._runner, path).start()
        self._paths.append(path)

    async def _begin(self) -> None:
        if self._runner.server is None:
            await self._runner.setup()

    async def close(self) -> None:
        if self._certificates is not None:
            self._certificates.close()
        await self._runner.cleanup()
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink()
