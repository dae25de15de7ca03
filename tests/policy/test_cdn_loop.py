"""RFC 8586: who has been here is recognised, and nobody else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.cdn_loop import MOST, has_looped, loop_member, with_member

OURS = loop_member("edgeproxy", "a1")


@pytest.mark.parametrize(
    "value",
    [
        "edgeproxy; node=a1",
        "EdgeProxy;node=a1",
        'foo.example;a="1, 2", edgeproxy ; x=y; NODE="a1" , barcdn',
        "edgeproxy; node=b2, edgeproxy; node=a1",
        ", ".join(["other"] * MOST),
    ],
)
def test_a_loop(value: str) -> None:
    assert has_looped(value, OURS)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " , ",
        "edgeproxy",
        "edgeproxy; node=b2",
        "edgeproxy; node=A1",
        "other; node=a1",
        'other; x="edgeproxy; node=a1"',
        'other; x=", edgeproxy; node=a1, "',
        "; node=a1",
        ", ".join(["other"] * (MOST - 1)),
    ],
)
def test_no_loop(value: str) -> None:
    assert not has_looped(value, OURS)


def test_without_a_node_the_name_counts() -> None:
    assert has_looped("edge", loop_member("edge", ""))
    assert not has_looped("edge; node=x", loop_member("edge", ""))


@given(st.text(alphabet='ab;=," \\\t', max_size=60))
def test_what_goes_on_comes_back(value: str) -> None:
    """Whatever others have written: it stays, and we are found in it unless a quote of theirs swallows us."""
    sent = with_member(value, OURS)
    assert sent.endswith(OURS)
    assert sent.startswith(value) or not value.strip()
    if '"' not in value:
        assert has_looped(sent, OURS)
