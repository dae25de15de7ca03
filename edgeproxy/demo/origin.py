"""The demo origin: a small API of pitches and profiles, as slow as its queries are.

Rules of this file:

- An ordinary aiohttp.web application that knows nothing of the cache in front of it. What it says of
  caching (Cache-Control on some answers, none on others, validators, Surrogate-Key) is true.
- Each request is counted before anything else, so that GET /_demo/counts tells what reached the origin.
- SQL runs in a few threads; the loop only speaks HTTP.

Run it: ``python -m edgeproxy.demo.origin --port 9000``. With port 0 the system picks one. The first line of
output names the address once connections are accepted.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from email.utils import formatdate
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import orjson
from aiohttp import web

from edgeproxy.clock import Clock
from edgeproxy.demo.assets import Asset, assets
from edgeproxy.demo.catalogue import GENRES, PROFILES, Catalogue, Row, Version

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

NOTHING: Mapping[str, str] = MappingProxyType({})
THREADS = 4
COUNTED = 10_000
"""Distinct targets counted by name; more are counted together."""

_TEXT_FIELDS = {"title": 200, "logline": 1_000, "body": 20_000}
"""What a client may write, and how long it may be, in characters."""


class DemoOrigin:
    """The application's state. ``catalogue`` is closed by whoever made it."""

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._assets = assets()
        self._serial = count(1)
        self._threads = ThreadPoolExecutor(THREADS, "demo-sql")
        self.counts: Counter[str] = Counter()

    def application(self) -> web.Application:
        @web.middleware
        async def counted(request: web.Request, handler: Handler) -> web.StreamResponse:
            name = f"{request.method} {request.raw_path}"
            if not request.path.startswith("/_demo/"):
                self.counts[name if name in self.counts or len(self.counts) < COUNTED else "others"] += 1
            return await handler(request)

        async def close(_: web.Application) -> None:
            self._threads.shutdown()

        application = web.Application(middlewares=[counted])
        application.on_cleanup.append(close)
        application.router.add_get("/api/pitches", self.list_pitches)
        application.router.add_post("/api/pitches", self.create_pitch)
        application.router.add_get("/api/pitches/trending", self.trending)
        application.router.add_get("/api/pitches/new", self.newest)
        application.router.add_get(r"/api/pitches/{id:\d{1,9}}", self.pitch)
        application.router.add_put(r"/api/pitches/{id:\d{1,9}}", self.update_pitch)
        application.router.add_get(r"/api/profiles/{id:\d{1,9}}", self.profile)
        application.router.add_get("/api/search", self.search)
        application.router.add_get(r"/api/live/{id:\d{1,9}}", self.live)
        application.router.add_get("/api/notifications", self.notifications)
        application.router.add_get("/static/{name}", self.static)
        application.router.add_get("/_demo/counts", self.show_counts)
        return application

    async def list_pitches(self, request: web.Request) -> web.Response:
        genre = request.query.get("genre")
        if genre is not None and genre not in GENRES:
            return _problem(400, f"genre: one of {', '.join(GENRES)}")
        page = request.query.get("page", "1")
        if not re.fullmatch(r"[1-9][0-9]{0,2}", page):
            return _problem(400, "page: a number from 1 to 999")
        total, found = await self._ask(self._catalogue.page, genre, int(page))
        # No Cache-Control: how long a list may be shared is left to whoever runs the edge.
        return _json({"total": total, "page": int(page), "pitches": found}, _keys("pitches", found))

    async def trending(self, _: web.Request) -> web.Response:
        found = await self._ask(self._catalogue.trending)
        return _json({"pitches": found}, _keys("pitches trending", found), fields=_fresh(60))

    async def newest(self, _: web.Request) -> web.Response:
        found = await self._ask(self._catalogue.newest)
        return _json({"pitches": found}, _keys("pitches new", found), fields=_fresh(60))

    async def pitch(self, request: web.Request) -> web.Response:
        pitch_id = int(request.match_info["id"])
        version = await self._ask(self._catalogue.pitch_version, pitch_id)
        if version is None:
            return _problem(404, f"no pitch {pitch_id}")
        fields = _pitch_fields(pitch_id, version)
        if _is_current(request, fields["ETag"], version.updated):
            return web.Response(status=304, headers=fields)
        # Read again: the version and the text must be of one state of the row.
        found = await self._ask(self._catalogue.pitch, pitch_id)
        if found is None:
            return _problem(404, f"no pitch {pitch_id}")
        version, row = found
        return _json(row, fields=_pitch_fields(pitch_id, version))

    async def create_pitch(self, request: web.Request) -> web.Response:
        fields = await _written(request)
        if isinstance(fields, str):
            return _problem(422, fields)
        missing = {"title", "genre", "logline", "body"} - fields.keys()
        if missing:
            return _problem(422, f"missing: {', '.join(sorted(missing))}")
        row = fields | {"profile_id": _person(request) or 1}
        pitch_id = await self._ask(self._catalogue.create, row, int(self._clock.now()))
        where = f"/api/pitches/{pitch_id}"
        return _json({"id": pitch_id, "url": where}, status=201, fields={"Location": where})

    async def update_pitch(self, request: web.Request) -> web.Response:
        fields = await _written(request)
        if isinstance(fields, str):
            return _problem(422, fields)
        pitch_id = int(request.match_info["id"])
        if not await self._ask(self._catalogue.update, pitch_id, fields, int(self._clock.now())):
            return _problem(404, f"no pitch {pitch_id}")
        return _json({"id": pitch_id, "changed": sorted(fields)})

    async def profile(self, request: web.Request) -> web.Response:
        profile_id = int(request.match_info["id"])
        found = await self._ask(self._catalogue.profile, profile_id)
        if found is None:
            return _problem(404, f"no profile {profile_id}")
        body = orjson.dumps(found)
        etag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
        fields = {"ETag": etag, "Surrogate-Key": f"profiles profile:{profile_id}"}
        if _is_current(request, etag, None):
            return web.Response(status=304, headers=fields)
        return web.Response(body=body, content_type="application/json", headers=fields)

    async def search(self, request: web.Request) -> web.Response:
        words = request.query.get("q", "").strip()
        if not 2 <= len(words) <= 100:
            return _problem(400, "q: 2 to 100 characters to look for")
        found = await self._ask(self._catalogue.search, words)
        return _json({"q": words, "pitches": found}, _keys("search", found))

    async def live(self, request: web.Request) -> web.Response:
        pitch_id = int(request.match_info["id"])
        numbers = await self._ask(self._catalogue.votes_on, pitch_id)
        now = self._clock.now()
        serial = next(self._serial)
        watching = 100 + (pitch_id * 37 + int(now) * 11 + serial) % 900
        shown = {"id": pitch_id, "serial": serial, "as_of": datetime.fromtimestamp(now, UTC).isoformat()}
        return _json(shown | {"watching": watching} | numbers, fields=_fresh(2))

    async def notifications(self, request: web.Request) -> web.Response:
        person = _person(request)
        if person is None:
            answer = _problem(401, "who is asking? Authorization: Bearer <any word>")
            answer.headers["WWW-Authenticate"] = 'Bearer realm="demo"'
            return answer
        found = await self._ask(self._catalogue.notifications, person)
        fields = {"Cache-Control": "private, max-age=30", "Vary": "Authorization"}
        return _json({"profile": person, "notifications": found}, fields=fields)

    async def static(self, request: web.Request) -> web.Response:
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            return _problem(404, f"no such file; there is {', '.join(self._assets)}")
        fields = {
            "Cache-Control": "public, max-age=604800",
            "ETag": asset.etag,
            "Last-Modified": formatdate(asset.modified, usegmt=True),
            "Surrogate-Key": "static",
        }
        if _is_current(request, asset.etag, asset.modified):
            return web.Response(status=304, headers=fields)
        return web.Response(body=asset.body, headers=fields | {"Content-Type": _kind(asset)})

    async def show_counts(self, _: web.Request) -> web.Response:
        return _json(
            {"counts": self.counts, "total": self.counts.total()}, fields={"Cache-Control": "no-store"}
        )

    async def _ask(self, question: Callable[..., T], *values: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, question, *values)


def _json(
    value: object, surrogate_key: str = "", *, status: int = 200, fields: Mapping[str, str] = NOTHING
) -> web.Response:
    if surrogate_key:
        fields = {**fields, "Surrogate-Key": surrogate_key}
    body = orjson.dumps(value)
    return web.Response(body=body, status=status, content_type="application/json", headers=fields)


def _problem(status: int, detail: str) -> web.Response:
    body = orjson.dumps({"status": status, "detail": detail})
    return web.Response(body=body, status=status, content_type="application/problem+json")


def _fresh(seconds: int) -> dict[str, str]:
    return {"Cache-Control": f"public, max-age={seconds}"}


def _keys(common: str, found: list[Row]) -> str:
    return " ".join([common, *(f"pitch:{row['id']}" for row in found)])


def _pitch_fields(pitch_id: int, version: Version) -> dict[str, str]:
    return {
        "ETag": f'"pitch-{pitch_id}-{version.revision}"',
        "Last-Modified": formatdate(version.updated, usegmt=True),
        "Surrogate-Key": f"pitches pitch:{pitch_id}",
    }


def _kind(asset: Asset) -> str:
    return f"{asset.content_type}; charset=utf-8"


def _is_current(request: web.Request, etag: str, modified: int | None) -> bool:
    """Whether the client's copy is the current one (RFC 9110 §13.2.2: If-None-Match goes first)."""
    known = request.if_none_match
    if known is not None:
        return any(f'"{tag.value}"' == etag or tag.value == "*" for tag in known)
    since = request.if_modified_since
    return modified is not None and since is not None and modified <= since.timestamp()


def _person(request: web.Request) -> int | None:
    """Whose request it is. Any bearer token will do: it names one profile, always the same."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    return int.from_bytes(hashlib.sha256(token.strip().encode()).digest()[:4]) % PROFILES + 1


async def _written(request: web.Request) -> Row | str:
    """Read the fields that a client sent, or what is wrong with them."""
    try:
        sent = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error}"
    if not isinstance(sent, dict) or not sent or sent.keys() - {*_TEXT_FIELDS, "genre"}:
        return f"an object with some of: {', '.join(_TEXT_FIELDS)}, genre"
    if sent.get("genre", GENRES[0]) not in GENRES:
        return f"genre: one of {', '.join(GENRES)}"
    for name, longest in _TEXT_FIELDS.items():
        value = sent.get(name, "-")
        if not isinstance(value, str) or not 1 <= len(value) <= longest:
            return f"{name}: a text of 1 to {longest} characters"
    return sent


async def serve(host: str, port: int, directory: Path) -> None:
    """Serve until SIGINT or SIGTERM, with the data in ``directory``."""
    catalogue = Catalogue(directory / "demo.sqlite")
    runner = web.AppRunner(DemoOrigin(catalogue, Clock()).application(), access_log=None)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0][1]
        print(f"demo origin on http://{host}:{bound}", flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
        catalogue.close()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m edgeproxy.demo.origin", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000, help="0: the system picks one")
    parser.add_argument("--directory", type=Path, help="where the SQLite file is kept (default: a new one)")
    args = parser.parse_args()
    with ExitStack() as kept:
        if args.directory is None:
            made = kept.enter_context(tempfile.TemporaryDirectory(prefix="edgeproxy-demo-"))
            args.directory = Path(made)
        try:
            asyncio.run(serve(args.host, args.port, args.directory))
        except (OSError, sqlite3.Error) as error:
            print(f"demo origin: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
