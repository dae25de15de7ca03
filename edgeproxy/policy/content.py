"""The name of a request's content, where a rule has it in the key: what may be answered alike has one name.

Rules of this file:

- RFC 10008 §2.7 has the key of a QUERY incorporate the content and its metadata: every Content-* field but
  the length is part of the name, and so is the method. A cache may take away what makes no difference; it is
  only done here where none can be made: JSON's white space, order of members and escapes, GraphQL's ignored
  tokens. Numbers stay as they are written, and what repeats a member's name is not JSON (RFC 8259 §4: which
  of them counts is the origin's to say).
- A client that says no-transform has its content taken octet by octet (§2.7).
- What a rule calls ``graphql`` has a name only if it surely is one query: everything else may change
  something, and whoever asks has a PassReason instead. In doubt: pass.
- A POST with conditions has no name: they ask for something else there than in a GET (RFC 9110 §13.1).
"""

from __future__ import annotations

import json
from dataclasses import replace
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from edgeproxy.policy.graphql import document
from edgeproxy.policy.lists import split_list
from edgeproxy.policy.vocabulary import PassReason

if TYPE_CHECKING:
    from edgeproxy.policy.head import Headers, RequestHead


class ContentForm(StrEnum):
    """How content is read for the key."""

    EXACT = "exact"
    """Octet by octet."""
    JSON = "json"
    """As JSON says the same; what is no JSON octet by octet."""
    GRAPHQL = "graphql"
    """Queries as GraphQL says the same; nothing else."""


CONDITIONS = frozenset({"if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range"})
_PARAMETERS = frozenset({"query", "variables", "operationname", "extensions"})
"""What a GraphQL request consists of, in lower case: some servers take a name in any letters."""


def with_content(
    request: RequestHead, content: bytes, form: ContentForm, *, persisted: bool = False
) -> RequestHead:
    """``request`` with the name of its content, or with the reason why that has none. ``persisted``: a POST
    that only names a stored document is a query."""
    if request.method == "POST" and not request.headers.isdisjoint(CONDITIONS):
        return replace(request, unkeyed=PassReason.CONTENT_CONDITIONAL)
    read: str | None = None
    if form is not ContentForm.EXACT and _says_json(request.headers):
        value = _json(content)
        if form is ContentForm.GRAPHQL:
            value = _query(request, value, persisted=persisted)
        read = None if value is None else _canonical(value)
    if read is None and form is ContentForm.GRAPHQL:
        return replace(request, unkeyed=PassReason.CONTENT_NOT_A_QUERY)
    if "no-transform" in split_list((request.headers.get("cache-control") or "").lower()):
        read = None
    digest = blake2b(digest_size=32)
    for name, value in request.headers.raw:
        if name.lower().startswith(b"content-") and name.lower() != b"content-length":
            digest.update(b"%b:%b\n" % (name.lower(), value.strip()))
    digest.update(b"\n" + (content if read is None else read.encode()))
    kind = form if read is not None else ContentForm.EXACT
    return replace(request, content_key=f"{request.method} {kind.value}#{digest.hexdigest()}")


def _says_json(headers: Headers) -> bool:
    """Whether the content is JSON that can be read: in UTF-8, without a coding."""
    kind, _, parameters = (headers.get("content-type") or "").lower().partition(";")
    kind = kind.strip()
    if not (kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))):
        return False
    if parameters.strip().replace('"', "") not in ("", "charset=utf-8"):
        return False
    return (headers.get("content-encoding") or "identity").strip().lower() == "identity"


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A mapping in a mapping of its own, so that nothing else can look like it."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member's name is repeated")
    return {"{": members}


def _number(text: str) -> dict[str, str]:
    return {"#": text}


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_number, parse_int=_number, parse_constant=_no_number
)


def _json(content: bytes) -> Any:
    """The value, mappings and numbers wrapped (``_members``, ``_number``); None where it is not JSON, or too
    deep to be looked at. ``null`` is None too: it says nothing that could be canonical."""
    try:
        return _DECODER.decode(content.decode())
    except (ValueError, RecursionError):
        return None


def _canonical(value: object) -> str | None:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    except RecursionError:  # pragma: no cover - what could be read is hardly ever too deep to be written
        return None


def _query(request: RequestHead, value: Any, *, persisted: bool) -> dict[str, Any] | None:
    """The members of a request for one query, its document reduced to its tokens; None where it is none."""
    members = value.get("{") if isinstance(value, dict) else None
    if not isinstance(members, dict) or _also_in_target(request) or _in_other_letters(members):
        return None
    members = {name: said for name, said in members.items() if said is not None}
    source, name = members.get("query"), members.get("operationName", "")
    if not isinstance(name, str):
        return None
    if source is None:
        # Only the origin knows what it has stored under this name. A QUERY cannot change anything; of a POST
        # the rule has to say so.
        known = _names_document(members) and (persisted or request.method == "QUERY")
        return members if known else None
    found = document(source) if isinstance(source, str) else None
    if found is None or found.kind(name) != "query":
        return None
    return {**members, "query": found.text}


def _also_in_target(request: RequestHead) -> bool:
    """Whether the target names a parameter of GraphQL too: some servers take that in place of the content."""
    given = parse_qsl(request.query or "", keep_blank_values=True)
    return any(name.lower() in _PARAMETERS for name, _ in given)


def _in_other_letters(members: dict[str, Any]) -> bool:
    return any(
        name.lower() in _PARAMETERS and name not in ("query", "variables", "operationName", "extensions")
        for name in members
    )


def _names_document(members: dict[str, Any]) -> bool:
    """Whether it says which stored document it means (automatic persisted queries)."""
    place: Any = members
    for name in ("extensions", "persistedQuery"):
        place = place.get(name)
        place = place.get("{") if isinstance(place, dict) else None
        if not isinstance(place, dict):
            return False
    return isinstance(place.get("sha256Hash"), str)
