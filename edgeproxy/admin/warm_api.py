"""Warm-ups on the admin port: begin one, look how it goes, stop it.

Rules of this file:

- A warm-up goes on whoever looks: a broken connection stops nothing, DELETE does.
- With ``Accept: application/x-ndjson`` the answer is a stream of JSON lines: ``{"job": …}``, then a line
  for each URL with its result and ``done`` of ``total``, and ``{"job": …}`` again at the end. While nothing
  comes, a line of how it stands each second or so.
- It is put together from questions that each end soon (``Control.warm_news``), so that it is the same with
  one worker and with several.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from edgeproxy.admin import warm_body
from edgeproxy.admin.control import State
from edgeproxy.admin.problem import Problem, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeproxy.admin.control import Control

LINES = "application/x-ndjson"
LONGEST_WAIT = 10.0
BEAT = 1.0
"""Seconds between two lines of a stream, at most."""
ENDED = ("done", "cancelled", "failed")


class WarmApi:
    def __init__(self, control: Control) -> None:
        self._control = control

    async def begin(self, request: web.Request) -> web.StreamResponse:
        body = b""
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > warm_body.LARGEST_BODY:
                raise Problem(413, f"larger than {warm_body.LARGEST_BODY // 1024**2} MiB; send several")
        job = await self._control.warm(warm_body.decode(body))
        if _wants_lines(request):
            return await self._stream(request, str(job["id"]))
        location = f"/api/cache/warm/{job['id']}"
        return web.Response(
            body=to_json(job), status=202, content_type="application/json", headers={"Location": location}
        )

    async def jobs(self, _: web.Request) -> web.StreamResponse:
        return _json({"jobs": await self._control.warm_jobs()})

    async def job(self, request: web.Request) -> web.StreamResponse:
        job = request.match_info["job"]
        if _wants_lines(request):
            return await self._stream(request, job)
        try:
            after = max(0, int(request.query.get("after", "0")))
            wait = min(LONGEST_WAIT, max(0.0, float(request.query.get("wait", "0"))))
        except ValueError:
            raise Problem(400, "expected ?after=NUMBER and ?wait=SECONDS") from None
        return _json(await self._news(job, after, wait))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        told = await self._control.warm_cancel(request.match_info["job"])
        if told is None:
            raise _unknown(request.match_info["job"])
        return _json(told)

    async def _news(self, job: str, after: int, wait: float) -> Mapping[str, Any]:
        told = await self._control.warm_news(job, after, wait)
        if told is None:
            raise _unknown(job)
        return told

    async def _stream(self, request: web.Request, job: str) -> web.StreamResponse:
        told = await self._news(job, 0, 0.0)
        response = web.StreamResponse(headers={"Content-Type": LINES})
        await response.prepare(request)
        done = 0
        with suppress(ConnectionError):
            await response.write(to_json({"job": _without_news(told)}))
            while True:
                for result in told["news"]:
                    done += 1
                    await response.write(to_json({**result, "done": done, "total": told["total"]}))
                if told["state"] in ENDED and done >= told["done"]:
                    await response.write(to_json({"job": _without_news(told)}))
                    break
                if self._control.state is State.DRAINING:
                    break
                news = await self._control.warm_news(job, done, BEAT)
                if news is None:
                    break
                told = news
                if not told["news"]:
                    line = {"state": told["state"], "done": done, "total": told["total"]}
                    await response.write(to_json(line))
            await response.write_eof()
        return response


def _without_news(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "news"}


def _wants_lines(request: web.Request) -> bool:
    return LINES in request.headers.get("Accept", "")


def _unknown(job: str) -> Problem:
    return Problem(404, f"no warm-up {job[:40]!r} is known; it may have ended a while ago")


def _json(body: Mapping[str, object]) -> web.Response:
    return web.Response(body=to_json(body), content_type="application/json")
