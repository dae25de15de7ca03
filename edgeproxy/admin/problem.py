"""Errors as RFC 9457 problem details.

Rules of this file: every error of the admin port goes out by ``problem()``; JSON escapes what a client sent;
an unexpected exception is logged here and told to the client without its text.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson
from aiohttp import web

from edgeproxy.admin.control import Refused

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

_LOG = logging.getLogger("edgeproxy.admin")


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """Raised by a handler: becomes the answer. ``more`` are extension members (RFC 9457 §3.2)."""

    def __init__(
        self, status: int, detail: str, headers: dict[str, str] | None = None, **more: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.more = more


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: object) -> web.Response:
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return web.Response(
        body=to_json(body | more),
        status=status,
        headers=headers,
        content_type="application/problem+json",
    )


def to_json(body: object) -> bytes:
    """JSON octets. Sets are sorted, mappings of any kind are objects, the rest is its text."""
    try:
        return orjson.dumps(body, default=_plain, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # text that is no UTF-8: a lone surrogate, which only ASCII escapes can carry
        return json.dumps(body, default=_plain).encode("ascii") + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into an answer."""
    try:
        return await handler(request)
    except Problem as said:
        return problem(said.status, said.detail, said.headers, **said.more)
    except Refused as refused:
        return problem(400, str(refused))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return problem(
            405, f"{request.method} is not for {request.path}; it takes {allowed}", {"Allow": allowed}
        )
    except web.HTTPNotFound:
        return problem(404, f"there is no {request.path} here; GET /api lists what there is")
    except web.HTTPException as error:
        return problem(error.status, error.reason)
    except Exception:  # noqa: BLE001 - the last line of defence
        _LOG.exception("%s %s failed", request.method, request.path)
        return problem(500, "this is a fault in edgeproxy; its log says more")
