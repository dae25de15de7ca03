"""Structured fields (RFC 9651): the only file that knows http_sf.

Rules of this file: a field that does not parse as a whole is no field at all (RFC 9651 §4.2), and parameters
are dropped, since no field read here defines any (RFC 9213 §2.1 has caches ignore them).
"""

from __future__ import annotations

from typing import cast

import http_sf


def parse_dictionary(value: str) -> dict[str, object] | None:
    """The members of a dictionary field, without their parameters; {} when empty, None when invalid.

    Inner lists come as tuples of items. Tokens come as str-like objects (use ``str()``).
    """
    try:
        parsed = http_sf.parse(value.encode("latin-1"), tltype="dictionary")
    except (ValueError, OverflowError):  # OverflowError: a Date beyond what datetime holds
        return None
    return {key: _bare(member) for key, member in cast("dict[str, tuple[object, object]]", parsed).items()}


def _bare(member: tuple[object, object]) -> object:
    item = member[0]
    if isinstance(item, list):
        return tuple(inner for inner, _ in cast("list[tuple[object, object]]", item))
    return item
