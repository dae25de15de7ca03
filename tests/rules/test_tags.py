"""Tags and what writes purge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.head import EMPTY, Headers
from edgeproxy.rules.model import PLAIN, Invalidation, Rule, TagPolicy
from edgeproxy.rules.tags import MAX_TAGS, MOST_GROUPS, cache_groups, invalidation_targets, tags_for


def test_templates_then_answer_fields() -> None:
    rule = Rule("r", "r:1", tags=TagPolicy(("pitches", "pitch:{id}")))
    headers = Headers.of([
        ("Surrogate-Key", "a b  pitches"), ("Cache-Tag", "c, d"), ("Cache-Groups", '"one two", "x";p=1'),
    ])  # fmt: skip
    assert tags_for(rule, {"id": "7"}, headers) == ("pitches", "pitch:7", "a", "b", "c", "d", "one two", "x")


def test_a_template_without_its_part_is_left_out() -> None:
    rule = Rule("r", "r:1", tags=TagPolicy(("pitches", "pitch:{id}")))
    assert tags_for(rule, {}, EMPTY) == ("pitches",)


def test_plain_caching_reads_tags_too() -> None:
    assert tags_for(PLAIN, {}, Headers.of([("Surrogate-Key", "a")])) == ("a",)


def test_tags_are_bounded_and_the_rules_come_first() -> None:
    rule = Rule("r", "r:1", tags=TagPolicy(("mine",)))
    headers = Headers.of([("Cache-Tag", ",".join([*(f"t{i}" for i in range(500)), "x" * 257]))])
    tags = tags_for(rule, {}, headers)
    assert len(tags) == MAX_TAGS
    assert tags[:2] == ("mine", "t0")
    assert tags_for(PLAIN, {}, Headers.of([("Cache-Tag", "x" * 257 + ",y")])) == ("y",)


@pytest.mark.parametrize(
    ("line", "groups"),
    [
        ('"a"', ("a",)),
        ('"a", "b c" ,"d,e"', ("a", "b c", "d,e")),
        (r'"say \"hi\" \\"', ('say "hi" \\',)),
        ('"a";x;y=1;z="q,\\"r";u=tok/en;v=:YQ==:;w=?1;d=@1, "b"', ("a", "b")),
        ("a", ()), ('"a", b', ()), ('"a" "b"', ()), ('"a",', ()), ('"a', ()), ("", ()), ('"é"', ()),
            ('"a",,"b"', ()),
    ],
)  # fmt: skip
def test_cache_groups(line: str, groups: tuple[str, ...]) -> None:
    assert cache_groups(line) == groups


@given(st.text('ab", ;=\\:?@', max_size=40))
def test_cache_groups_never_raises(line: str) -> None:
    assert all(isinstance(g, str) for g in cache_groups(line))


def test_what_a_write_purges() -> None:
    rule = Rule(
        "r", "r:1",
        invalidates=(
            Invalidation(frozenset({"POST"}), tags=("pitches",), prefixes=("/api/search",), soft=True),
            Invalidation(frozenset({"PUT"}), tags=("pitch:{id}",), urls=("/p/{id}", "/p")),
        ),
    )  # fmt: skip
    assert invalidation_targets(rule, {}, "POST") == (
        (True, "tag", "pitches"),
        (True, "prefix", "/api/search"),
    )
    assert invalidation_targets(rule, {"id": "7"}, "PUT") == (
        (False, "tag", "pitch:7"), (False, "url", "/p/7"), (False, "url", "/p"),
    )  # fmt: skip
    assert invalidation_targets(rule, {}, "PUT") == ((False, "url", "/p"),)
    assert invalidation_targets(rule, {}, "GET") == ()


def test_groups_are_bounded_beside_the_tags() -> None:
    """RFC 9875 §2: 128 groups of 32 characters work, whatever tags there are besides."""
    groups = [f"{i:032}" for i in range(129)]
    rule = Rule("r", "r:1", tags=TagPolicy(("mine",)))
    headers = Headers.of([
        ("Cache-Tag", ",".join(f"t{i}" for i in range(500))),
        ("Cache-Groups", ", ".join(f'"{g}"' for g in groups[:60])),
        ("Cache-Groups", ", ".join(f'"{g}"' for g in groups[60:])),
    ])  # fmt: skip
    tags = tags_for(rule, {}, headers)
    assert len(tags) == MAX_TAGS + MOST_GROUPS
    assert tags[MAX_TAGS:] == tuple(groups[:128])
    assert tags_for(PLAIN, {}, Headers.of([("Cache-Groups", '"a"'), ("Cache-Groups", "b")])) == ()
