"""The page at / on the admin port: its files, and how they are answered.

Rules of this file:

- FILES is all there is; a name that is not among them is 404, whatever lies in the directory. They are read
  once. There is no build step, and the page asks nobody but the port that it came from.
- Its policy allows scripts and styles of its own origin only: nothing inline, no eval, no string that becomes
  markup (Trusted Types), no frame around it.
- The page holds no data and no secret: it is answered without a token, and asks the API for what it shows.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Mapping

INDEX = "index.html"
_SCRIPTS = (
    "alerts.js", "api.js", "app.js", "charts.js", "dom.js", "format.js", "life.js", "tables.js", "tools.js",
)  # fmt: skip
FILES: Mapping[str, str] = MappingProxyType(
    {
        INDEX: "text/html",
        "style.css": "text/css",
        "icon.svg": "image/svg+xml",
        **dict.fromkeys(_SCRIPTS, "text/javascript"),
    }
)
"""Name -> media type."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def wanted(request: web.Request) -> bool:
    """Whether who asks for / is a browser that wants to show something."""
    return "text/html" in request.headers.get("Accept", "")


def answer(name: str) -> web.Response:
    """Raises HTTPNotFound."""
    if name not in FILES:
        raise web.HTTPNotFound
    return web.Response(
        body=_octets(name),
        content_type=FILES[name],
        charset="utf-8",
        headers={"Content-Security-Policy": POLICY, "Vary": "Accept"},
    )


@cache
def _octets(name: str) -> bytes:
    return (Path(__file__).parent / name).read_bytes()
