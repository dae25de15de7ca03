from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.store.purge import PurgeKind, PurgeOrder, PurgeReceipt, glob, matches
from tests.store.make import make_entry

few = st.text("ab/*", max_size=8)


@given(few, st.text("ab/", max_size=8))
def test_a_pattern_means_what_the_regular_expression_would(pattern: str, text: str) -> None:
    regex = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert glob(pattern, text) == (re.fullmatch(regex, text, re.DOTALL) is not None)


def test_a_hostile_pattern_is_cheap() -> None:
    assert not glob("*a" * 500 + "b", "a" * 100_000)


def test_a_host_concerns_entries_of_all_hosts_too() -> None:
    order = PurgeOrder(PurgeKind.URL, "/a", host="x")
    assert matches(order, make_entry(host="x"))
    assert matches(order, make_entry(host=""))
    assert not matches(order, make_entry(host="y"))


@pytest.mark.parametrize(
    ("kind", "value"), [("url", ""), ("prefix", "/" * 1025), ("pattern", "ä" * 600), ("nonsense", "x")]
)
def test_what_cannot_be_carried_out_is_refused(kind: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        PurgeOrder(PurgeKind(kind), value)


def test_a_receipt_is_complete_when_every_layer_is() -> None:
    assert PurgeReceipt(1, PurgeKind.ALL, soft=False, layers={"l1": "ok"}).complete
    assert not PurgeReceipt(1, PurgeKind.ALL, soft=False, layers={"l1": "ok", "l2": "not told"}).complete
