"""Plain values: frozen for who reads and checks the code, ordinary when it runs.

Rules of this file: ``value`` is ``dataclass(frozen=True, slots=True)`` to a type checker, which refuses every
assignment. At run time nothing stands in the way of one: a frozen dataclass sets each field by a call, which
makes it three times as dear to make, and a miss makes twenty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """A class of plain values: compared and hashed by its fields, never changed."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
