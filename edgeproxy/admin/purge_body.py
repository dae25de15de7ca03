"""The body of POST /api/cache/purge, decoded strictly.

Rules of this file: one of url, tag, prefix, pattern or ``all: true``, and nothing that is not known: a
misspelled ``soft`` must not become a hard purge. What is wrong is said with what was expected.
"""

from __future__ import annotations

import msgspec

from edgeproxy.admin.control import Kind, PurgeRequest
from edgeproxy.admin.problem import Problem

EXPECTED = (
    'expected a JSON object with one of {"url": …} {"tag": …} {"prefix": …} {"pattern": …} {"all": true}, '
    'and optionally "soft" and "dry_run" (true or false)'
)
LONGEST = 8192


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    url: str | msgspec.UnsetType = msgspec.UNSET
    tag: str | msgspec.UnsetType = msgspec.UNSET
    prefix: str | msgspec.UnsetType = msgspec.UNSET
    pattern: str | msgspec.UnsetType = msgspec.UNSET
    all: bool | msgspec.UnsetType = msgspec.UNSET
    soft: bool = False
    dry_run: bool = False


_DECODER = msgspec.json.Decoder(_Body)


def decode(body: bytes) -> PurgeRequest:
    """Raises Problem (400)."""
    try:
        said = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _wrong(str(error)) from None
    given = {kind: getattr(said, kind.value) for kind in Kind}
    given = {kind: value for kind, value in given.items() if value is not msgspec.UNSET}
    if len(given) != 1:
        names = " and ".join(given) or "none of them"
        raise _wrong(f"exactly one says what to purge, and {names} was given")
    ((kind, value),) = given.items()
    if kind is Kind.ALL:
        if value is not True:
            raise _wrong('"all" can only be true')
        value = ""
    elif not value:
        raise _wrong(f'"{kind}" is empty (to purge everything, say {{"all": true}})')
    elif len(value) > LONGEST:
        raise _wrong(f'"{kind}" is longer than {LONGEST} characters')
    elif any(character <= " " or character == "\x7f" for character in value):
        raise _wrong(f'"{kind}" contains a space or a control character; percent-encode it')
    return PurgeRequest(kind, value, soft=said.soft, dry_run=said.dry_run)


def _wrong(what: str) -> Problem:
    return Problem(400, f"{what}; {EXPECTED}")
