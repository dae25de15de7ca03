"""Octets with gaps: rendered once with marks where values go, then filled without rendering.

Rules of this file: a mark is a token that stands nowhere else (secrets.token_hex); a value may have several
gaps, or none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Sequence


@final
class Template:
    """``octets`` with ``marks``, of which there is at least one."""

    __slots__ = ("_gaps", "_parts")

    def __init__(self, octets: bytes, marks: Sequence[bytes]) -> None:
        self._parts = re.split(b"(" + b"|".join(map(re.escape, marks)) + b")", octets)
        self._gaps = [(2 * at + 1, marks.index(mark)) for at, mark in enumerate(self._parts[1::2])]

    def filled(self, values: Sequence[bytes]) -> list[bytes]:
        """In pieces, with the values of the marks in their place."""
        parts = self._parts.copy()
        for at, which in self._gaps:
            parts[at] = values[which]
        return parts
