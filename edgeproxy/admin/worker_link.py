"""HTTP to one worker's own socket (private.py answers there).

Rules of this file: whatever goes wrong is NoAnswer, in time and with one line that says why; whose line it
is in the log is for the asker to say.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson

from edgeproxy.admin.problem import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PATIENCE = 5.0
"""Seconds for a worker's answer; the slow questions have more."""


class NoAnswer(Exception):  # noqa: N818 - it is what happened
    """The worker did not answer, or not what was expected."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes

    def json(self) -> Any:
        """Raises NoAnswer."""
        try:
            return orjson.loads(self.body)
        except ValueError as error:
            raise NoAnswer(f"no JSON: {error}") from None


class WorkerLink:
    """HTTP to one worker's own socket. Make it on the loop that uses it."""

    def __init__(self, path: Path) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=str(path)), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Sequence[tuple[str, str]] = (),
        patience: float = PATIENCE,
    ) -> Reply:
        """Raises NoAnswer after ``patience`` seconds at most."""
        if self._session.closed:
            raise NoAnswer("it has ended")
        try:
            async with (
                asyncio.timeout(patience),
                self._session.request(
                    method,
                    f"http://worker{path}",
                    data=None if body is None else BytesIO(to_json(body)),
                    params=list(query),
                ) as answer,
            ):
                return Reply(answer.status, await answer.read())
        except TimeoutError:
            raise NoAnswer(f"no answer within {patience:g} s") from None
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            # RuntimeError: the link was closed meanwhile, since the worker has ended.
            raise NoAnswer(str(error) or type(error).__name__) from None

    async def alive(self, patience: float) -> bool:
        """Whether its loop turns."""
        try:
            return (await self.ask("GET", "/healthz", patience=patience)).status == 200
        except NoAnswer:
            return False

    async def close(self) -> None:
        await self._session.close()
