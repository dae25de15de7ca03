from __future__ import annotations

import re
from enum import StrEnum

import pytest

from edgeproxy.policy import vocabulary
from edgeproxy.policy.vocabulary import CacheWord, OriginFailure

REASONS = [
    kind
    for kind in vars(vocabulary).values()
    if isinstance(kind, type) and issubclass(kind, StrEnum) and kind not in (StrEnum, CacheWord)
]


@pytest.mark.parametrize("kind", REASONS)
def test_reasons_are_lower_case_tokens(kind: type[StrEnum]) -> None:
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", member.value) for member in kind)


def test_a_failure_is_told_with_its_status() -> None:
    assert OriginFailure.REFUSED.status == 502
    assert OriginFailure.FIRST_BYTE_TIMEOUT.status == 504
    assert OriginFailure.OVERLOADED.status == 503
    assert OriginFailure.ABANDONED.status == 499
