"""The query of GET /api/explain, decoded strictly.

Rules of this file: the same parameters both ways, so that a node can hand a question on to a worker. What is
wrong is said with what was expected.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgeproxy.admin.control import ExplainRequest
from edgeproxy.admin.problem import Problem

if TYPE_CHECKING:
    from multidict import MultiMapping

KNOWN = frozenset({"url", "method", "header", "status", "answer_header"})
LONGEST = 8192

_METHOD = re.compile(r"[A-Za-z][A-Za-z-]{0,30}")
_URL = re.compile(r"[!-~]+")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def decode(query: MultiMapping[str]) -> ExplainRequest:
    """Raises Problem (400)."""
    strange = sorted(set(query) - KNOWN)
    if strange:
        raise Problem(400, f"{strange[0]!r} is not known; expected {', '.join(sorted(KNOWN))}")
    url, method, status = query.get("url", ""), query.get("method", "GET"), query.get("status", "")
    if not _URL.fullmatch(url) or len(url) > LONGEST:
        raise Problem(400, "expected ?url=, a path or an http URL, percent-encoded")
    if not _METHOD.fullmatch(method):
        raise Problem(400, f"method {method[:30]!r}: expected one such as GET")
    if status and not (status.isascii() and status.isdigit() and 200 <= int(status[:9]) <= 599):
        raise Problem(400, f"status {status[:30]!r}: expected 200 to 599")
    return ExplainRequest(
        url,
        method.upper(),
        fields(query.getall("header", ()), "header"),
        int(status or 0),
        fields(query.getall("answer_header", ()), "answer_header"),
    )


def fields(lines: list[str] | tuple[str, ...], parameter: str) -> tuple[tuple[str, str], ...]:
    """Of lines ``Name: value``. Raises Problem (400)."""
    found = []
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name.strip()) or not line.isprintable():
            raise Problem(400, f"expected {parameter}=Name:%20value")
        found.append((name.strip(), value.strip()))
    return tuple(found)


def encode(request: ExplainRequest) -> list[tuple[str, str]]:
    """The query that means this."""
    query = [("url", request.url), ("method", request.method)]
    query += [("header", f"{name}: {value}") for name, value in request.headers]
    if request.status:
        query.append(("status", str(request.status)))
    query += [("answer_header", f"{name}: {value}") for name, value in request.answer_headers]
    return query
