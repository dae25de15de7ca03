"""The tour's eyes: a client that takes answers as they come, and what it reads in them.

Rules of this file: nothing is decoded, followed, cached or retried; waiting for a state is asking until the
answer's own fields show it, bounded by time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from multidict import CIMultiDictProxy

    from edgeproxy.clock import Clock
    from edgeproxy.demo.processes import Running

PATIENCE = 15.0
"""Seconds to wait for a state to show."""

_PAUSE = 0.05


class Unexpected(Exception):  # noqa: N818  (not a fault of this program: what it is here to find)
    """A step did not show what it should."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer. ``seconds`` from sending the request to the body's end."""

    request: str
    status: int
    fields: CIMultiDictProxy[str]
    body: bytes
    seconds: float

    @property
    def word(self) -> str:
        return self.fields.get("X-Cache-Status", "-")

    def field(self, name: str) -> str:
        """Give all values of the field, or "-"."""
        return ", ".join(self.fields.getall(name, ["-"]))


class Probe:
    """``async with Probe(running, clock) as probe``: asks edgeproxy, its admin port and the origin."""

    def __init__(self, running: Running, clock: Clock) -> None:
        self._running = running
        self._clock = clock
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding", "User-Agent"),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(
        self, method: str, target: str, fields: Mapping[str, str] | None = None, json: object = None
    ) -> Seen:
        """Send one request through edgeproxy. Raises Unexpected if nothing well-formed comes back."""
        begun = self._clock.monotonic()
        url = self._running.url + target
        try:
            async with self._session.request(
                method, url, headers=fields, json=json, allow_redirects=False
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unexpected(f"{method} {target}: {type(error).__name__}: {error}") from error
        seconds = self._clock.monotonic() - begun
        return Seen(f"{method} {target}", answer.status, answer.headers, body, seconds)

    async def get(self, target: str, **fields: str) -> Seen:
        """GET with field names written as in ``if_none_match='"a"'``."""
        return await self.ask("GET", target, {n.replace("_", "-"): v for n, v in fields.items()})

    async def together(self, target: str, clients: int) -> list[Seen]:
        """GET the target from as many connections at once."""
        return await asyncio.gather(*(self.get(target) for _ in range(clients)))

    async def until(self, target: str, wanted: str, shows: Callable[[Seen], bool]) -> Seen:
        """GET the target again and again until an answer shows what is wanted."""
        deadline = self._clock.monotonic() + PATIENCE
        while True:
            seen = await self.get(target)
            if shows(seen):
                return seen
            if self._clock.monotonic() > deadline:
                raise Unexpected(f"waited {PATIENCE:g} s for {wanted}; last: {seen.status} {seen.word}")
            await self._clock.sleep(_PAUSE)

    async def origin_saw(self, target: str) -> int:
        """How many GET requests for the target have reached the origin."""
        answer = await self._json("GET", f"{self._running.origin_url}/_demo/counts")
        return int(answer["counts"].get(f"GET {target}", 0))

    async def purge(self, **what: object) -> dict[str, Any]:
        """Purge, as in ``purge(tag="pitches")``; what the admin port answered."""
        return await self._json("POST", f"{self._running.admin_url}/api/cache/purge", what)

    async def kill_origin(self) -> None:
        await self._running.origin.kill()

    async def _json(self, method: str, url: str, sent: object = None) -> dict[str, Any]:
        fields = {"Authorization": f"Bearer {self._running.token}"}
        try:
            async with self._session.request(method, url, headers=fields, json=sent) as answer:
                if answer.status >= 300:
                    raise Unexpected(f"{method} {url}: {answer.status} {(await answer.text())[:300]}")
                return dict(await answer.json())
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unexpected(f"{method} {url}: {type(error).__name__}: {error}") from error
