"""The measures beside the rates: each is a figure in words, with its target and whether it is reached.

Rules of this file: a measure that could not be taken says why and has no verdict; one that was
scaled down says to what.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """``ok`` None: no target, or it could not be measured."""

    group: str
    what: str
    figure: str
    target: str = ""
    ok: bool | None = None

    @property
    def verdict(self) -> str:
        return "" if self.ok is None else "ok" if self.ok else "missed"
