"""RFC 9110 §14 and RFC 9111 §3.3: what a stored part answers, and what is asked for beyond it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.policy.conclude import conclude
from edgeproxy.policy.decide import decide, deliver
from edgeproxy.policy.decisions import (
    Asked,
    Discard,
    Failed,
    Fetch,
    Form,
    GiveUp,
    Join,
    Refetch,
    Refresh,
    Revalidate,
    Serve,
    ServeStale,
    Store,
)
from edgeproxy.policy.parts import answers, is_true, part_of, revalidate_part, within
from edgeproxy.policy.ranges import UNSATISFIABLE, single_range, span_text
from edgeproxy.policy.stored import Overrides, Part
from edgeproxy.policy.validate import strong_validator
from edgeproxy.policy.vocabulary import Forwarded, NotStored, OriginFailure
from tests.policy.make import NOW, PLAIN, came, date, fields, request
from tests.policy.make import stored as whole

if TYPE_CHECKING:
    from edgeproxy.policy.stored import Stored

CC, FRESH = "Cache-Control", {"Cache-Control": "max-age=60"}
TAGGED = {**FRESH, "ETag": '"a"'}


def ranged(value: str, **others: str) -> dict[str, str]:
    return {"Range": value, **{name.replace("_", "-"): v for name, v in others.items()}}


def part(
    start: int, stop: int, total: int | None, given: dict[str, str], *, length: int | None = None
) -> Stored:
    """A part as it is stored of an answer received at NOW."""
    said = f"bytes {start}-{stop - 1}/{'*' if total is None else total}"
    answer = came(206, {**given, "Content-Range": said, "Content-Digest": "x"})
    conclusion = conclude(request(ranged("bytes=0-0")), None, answer, PLAIN, NOW, Asked.PART)
    assert isinstance(conclusion, Store), conclusion
    assert conclusion.stored.headers.get("content-range") is None
    assert conclusion.stored.headers.get("content-digest") is None
    return replace(conclusion.stored, length=stop - start if length is None else length)


# -- one range -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "span", "text"),
    [
        ("bytes=0-1", (0, 1), "bytes=0-1"),
        (" BYTES= 05-", (5, None), "bytes=5-"),
        ("bytes=-005", (None, 5), "bytes=-5"),
    ],
)
def test_a_single_range(value: str, span: tuple[int | None, int | None], text: str) -> None:
    assert single_range(value) == span
    assert span_text(span) == text


@pytest.mark.parametrize(
    "value", [None, "", "bytes", "bytes=", "bytes=0-1,3-4", "bytes=-0", "bytes=5-4", "x=0-1"]
)
def test_no_single_range(value: str | None) -> None:
    assert single_range(value) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("bytes 0-4/10", Part(0, 5, 10)),
        ("Bytes  4-9/10", Part(4, 10, 10)),
        ("bytes 0-4/*", Part(0, 5, None)),
        ("bytes 5-4/10", None),
        ("bytes 0-10/10", None),
        ("bytes */10", None),
        ("items 0-4/10", None),
        ("bytes 0-4", None),
        (f"bytes 0-{'9' * 19}/*", None),
    ],
)
def test_content_range(said: str, expected: Part | None) -> None:
    assert part_of(fields({"Content-Range": said})) == expected


@pytest.mark.parametrize(
    ("length", "good"), [("5", True), ("4", True), ("6", False), ("0", False), ("x", False)]
)
def test_a_part_with_more_octets_than_it_says_is_none(length: str, good: bool) -> None:
    assert (part_of(fields({"Content-Range": "bytes 0-4/10", "Content-Length": length})) is not None) is good


def test_several_parts_are_no_part() -> None:
    several = {"Content-Range": "bytes 0-4/10", "Content-Type": "Multipart/Byteranges; boundary=x"}
    assert part_of(fields(several)) is None
    assert part_of(fields({})) is None


@pytest.mark.parametrize(
    ("given", "validator"),
    [
        ({"ETag": '"a"'}, '"a"'),
        ({"ETag": 'W/"a"', "Last-Modified": date(-900), "Date": date()}, None),
        ({"ETag": "a"}, None),
        ({"Last-Modified": date(-900), "Date": date()}, date(-900)),
        ({"Last-Modified": date(-1), "Date": date()}, None),
        ({}, None),
    ],
)
def test_strong_validators(given: dict[str, str], validator: str | None) -> None:
    assert strong_validator(fields(given)) == validator


# -- what a part answers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "asked", "octets"),
    [
        ((4, 10, 10), "bytes=6-8", (6, 9)),
        ((4, 10, 10), "bytes=6-", (6, 10)),
        ((4, 10, 10), "bytes=6-99", (6, 10)),
        ((4, 10, 10), "bytes=-5", (5, 10)),
        ((4, 10, 10), "bytes=3-5", None),
        ((4, 10, 10), "bytes=-7", None),
        ((4, 8, 10), "bytes=6-", None),
        ((4, 8, 10), "bytes=-2", None),
        ((4, 8, 10), "bytes=10-", UNSATISFIABLE),
        ((4, 8, None), "bytes=4-7", (4, 8)),
        ((4, 8, None), "bytes=4-8", None),
        ((4, 8, None), "bytes=4-", None),
        ((4, 8, None), "bytes=-1", None),
        ((0, 10, 10), "bytes=0-1,4-5", None),
        ((0, 10, 10), "items=0-1", None),
    ],
)
def test_within(kept: tuple[int, int, int | None], asked: str, octets: object) -> None:
    stored = part(*kept, FRESH)
    assert within(request(ranged(asked)), stored)[0] == octets
    assert answers(request(ranged(asked)), stored) is (octets is not None)


@pytest.mark.parametrize(
    ("asked", "octets", "at"),
    [
        ("bytes=6-8", (6, 9), 4),
        ("bytes=6-", (6, 9), 4),
        ("bytes=-5", (5, 10), 5),
        ("bytes=-1", (9, 10), 5),
        ("bytes=9-9", None, 4),
        ("bytes=10-", None, 4),
    ],
)
def test_a_part_of_fewer_octets_than_it_says(asked: str, octets: object, at: int) -> None:
    stored = part(4, 10, 10, FRESH, length=5)
    assert not is_true(stored)
    assert within(request(ranged(asked)), stored) == (octets, at)


def test_one_of_fewer_octets_that_does_not_reach_the_end_is_counted_from_its_start() -> None:
    stored = part(4, 8, 10, FRESH, length=3)
    assert within(request(ranged("bytes=-4")), stored)[0] is None
    assert within(request(ranged("bytes=5-7")), stored) == ((5, 7), 4)


def test_a_part_is_for_get_and_a_matching_if_range() -> None:
    stored = part(0, 5, 10, TAGGED)
    assert answers(request(ranged("bytes=0-1", If_Range='"a"')), stored)
    assert not answers(request(ranged("bytes=0-1", If_Range='"b"')), stored)
    assert not answers(request(ranged("bytes=0-1"), method="HEAD"), stored)
    assert not answers(request(), stored)
    assert answers(request(), whole(FRESH))
    assert within(request(ranged("bytes=0-1")), whole(FRESH))[0] is None
    assert not is_true(whole(FRESH))


def test_a_draft_counts_as_what_it_says() -> None:
    stored = part(0, 5, 10, TAGGED, length=-1)
    assert within(request(ranged("bytes=3-4")), stored) == ((3, 5), 0)
    assert is_true(stored)
    assert stored.complete_length == 10
    assert replace(whole(FRESH), length=-1).complete_length is None


# -- decide --------------------------------------------------------------------------------------------


def test_a_part_is_served_as_206_and_never_as_the_whole() -> None:
    stored = part(4, 10, 10, TAGGED)
    served = decide(request(ranged("bytes=6-7")), stored, PLAIN, NOW)
    assert isinstance(served, Serve)
    assert (served.form, served.ranges, served.at) == (Form.PARTIAL, ((6, 8),), 4)
    part_4_8 = part(4, 8, 10, TAGGED)
    beyond = decide(request(ranged("bytes=12-")), part_4_8, PLAIN, NOW)
    assert isinstance(beyond, Serve)
    assert beyond.form is Form.NOT_SATISFIABLE
    conditional = decide(request(ranged("bytes=6-7", If_None_Match='"a"')), stored, PLAIN, NOW)
    assert isinstance(conditional, Serve)
    assert conditional.form is Form.NOT_MODIFIED
    for asked in (
        request(),
        request({"If-None-Match": '"a"'}),
        request(method="HEAD"),
        request(ranged("bytes=0-9")),
    ):
        assert not isinstance(decide(asked, stored, PLAIN, NOW), Serve | ServeStale)
        given = deliver(asked, stored, PLAIN, NOW)
        assert given.form is not Form.FULL
    own = deliver(request(ranged("bytes=6-7")), stored, PLAIN, NOW, own=True)
    assert (own.ranges, own.at) == (((4, 10),), 4)


@pytest.mark.parametrize(
    ("asked", "conditions", "span"),
    [
        ({}, (), ""),
        (ranged("bytes=0-1,5-6"), (), ""),
        (ranged("bytes=-5"), ((b"Range", b"bytes=-5"),), "bytes=-5"),
        (
            ranged("bytes=0-04", If_Range='"x"'),
            ((b"Range", b"bytes=0-4"), (b"If-Range", b'"x"')),
            'bytes=0-4 "x"',
        ),
    ],
)
def test_a_miss(asked: dict[str, str], conditions: tuple[tuple[bytes, bytes], ...], span: str) -> None:
    how = Asked.PART if conditions else Asked.WHOLE
    assert decide(request(asked), None, PLAIN, NOW) == Fetch(Forwarded.URI_MISS, None, conditions, how, span)
    for plain in (request(asked, method="HEAD"), request(asked)):
        overrides = PLAIN if plain.method == "HEAD" else Overrides(parts=False)
        assert decide(plain, None, overrides, NOW) == Fetch(Forwarded.URI_MISS)


IF_A, IF_B = (b"If-Range", b'"a"'), (b"If-Range", b'"b"')


@pytest.mark.parametrize(
    ("kept", "asked", "conditions", "how"),
    [
        # The whole is wanted: the rest, where it is one piece.
        ((0, 5, 10), {}, ((b"Range", b"bytes=5-"), IF_A), Asked.REST),
        ((0, 5, None), {}, ((b"Range", b"bytes=5-"), IF_A), Asked.REST),
        ((5, 10, 10), {}, ((b"Range", b"bytes=0-4"), IF_A), Asked.REST),
        ((3, 5, 10), {}, (), Asked.WHOLE),
        ((3, 5, None), {}, (), Asked.WHOLE),
        ((0, 10, 10), {}, (), Asked.WHOLE),
        ((0, 5, 10), ranged("bytes=0-1,3-4"), ((b"Range", b"bytes=5-"), IF_A), Asked.REST),
        # A range that is there in part: what it lacks.
        ((0, 5, 10), ranged("bytes=2-6"), ((b"Range", b"bytes=5-6"), IF_A), Asked.REST),
        ((0, 5, 10), ranged("bytes=2-"), ((b"Range", b"bytes=5-"), IF_A), Asked.REST),
        ((0, 5, None), ranged("bytes=2-6"), ((b"Range", b"bytes=5-6"), IF_A), Asked.REST),
        ((5, 10, 10), ranged("bytes=2-6"), ((b"Range", b"bytes=2-4"), IF_A), Asked.REST),
        # What would not help is left alone.
        ((0, 5, 10), ranged("bytes=5-6"), ((b"Range", b"bytes=5-6"),), Asked.PART),
        ((0, 5, 10), ranged("bytes=7-8"), ((b"Range", b"bytes=7-8"),), Asked.PART),
        ((4, 6, 10), ranged("bytes=2-8"), ((b"Range", b"bytes=2-8"),), Asked.PART),
        ((0, 5, None), ranged("bytes=2-"), ((b"Range", b"bytes=2-"),), Asked.PART),
        ((0, 5, 10), ranged("bytes=2-6", If_Range='"b"'), ((b"Range", b"bytes=2-6"), IF_B), Asked.PART),
    ],
)  # fmt: skip
def test_what_is_asked_for_beyond_a_part(
    kept: tuple[int, int, int | None],
    asked: dict[str, str],
    conditions: tuple[tuple[bytes, bytes], ...],
    how: Asked,
) -> None:
    stored = part(*kept, TAGGED)
    decision = decide(request(asked), stored, PLAIN, NOW)
    assert isinstance(decision, Fetch)
    assert (decision.conditions, decision.asked, decision.stored) == (conditions, how, stored)
    assert decision.reason is Forwarded.PARTIAL
    # A stale one with a strong validator too: If-Range asks whether it still holds.
    stale = decide(request(asked), stored, PLAIN, NOW + 100)
    assert stale == replace(decision, reason=Forwarded.STALE)


def test_completing_without_a_validator() -> None:
    """Fresh: the rest, of which only a 200 is of use. Stale, or only a range: no."""
    stored = part(0, 5, 10, FRESH)
    decision = decide(request(), stored, PLAIN, NOW)
    assert decision == Fetch(Forwarded.PARTIAL, stored, ((b"Range", b"bytes=5-"),), Asked.REST)
    assert decide(request(), stored, PLAIN, NOW + 100) == Fetch(Forwarded.STALE, stored)
    newer = request({CC: "no-cache"})
    assert decide(newer, stored, PLAIN, NOW) == Fetch(Forwarded.REQUEST, stored)
    partly = decide(request(ranged("bytes=3-6")), stored, PLAIN, NOW)
    assert isinstance(partly, Fetch)
    assert partly.asked is Asked.PART
    head = decide(request(method="HEAD"), stored, PLAIN, NOW)
    assert head == Fetch(Forwarded.PARTIAL, stored)
    lying = part(0, 5, 10, FRESH, length=4)
    assert decide(request(), lying, PLAIN, NOW) == Fetch(Forwarded.PARTIAL, lying)


def test_a_larger_part_than_may_be_kept_is_not_made() -> None:
    stored = part(0, 50, 100, TAGGED)
    decision = decide(request(ranged("bytes=40-69")), stored, Overrides(max_object=60), NOW)
    assert isinstance(decision, Fetch)
    assert decision.asked is Asked.PART


def test_a_stale_part_is_validated_with_the_range() -> None:
    stored = part(0, 5, 10, TAGGED)
    asked = request(ranged("bytes=1-2"))
    decision = decide(asked, stored, PLAIN, NOW + 100)
    assert isinstance(decision, Revalidate)
    assert decision.conditions == ((b"If-None-Match", b'"a"'), (b"Range", b"bytes=1-2"))
    assert (decision.asked, decision.span) == (Asked.PART, "bytes=1-2")
    # The rule has been changed to range: whole meanwhile.
    decision = decide(asked, stored, Overrides(parts=False), NOW + 100)
    assert isinstance(decision, Revalidate)
    assert (decision.conditions, decision.asked) == (((b"If-None-Match", b'"a"'),), Asked.WHOLE)
    beyond = decide(request(ranged("bytes=3-6")), stored, Overrides(parts=False), NOW)
    assert isinstance(beyond, Fetch)
    assert beyond.asked is Asked.REST, "the whole is completed"
    bare = decide(asked, part(0, 5, 10, FRESH), PLAIN, NOW + 100)
    assert isinstance(bare, Fetch)
    assert bare.conditions == ((b"Range", b"bytes=1-2"),)


def test_a_refresh_asks_for_all_of_the_part() -> None:
    stored = part(3, 5, 10, TAGGED)
    assert stored.part is not None
    refresh = revalidate_part(stored, stored.part, Forwarded.STALE)
    assert isinstance(refresh, Revalidate)
    assert refresh.conditions == ((b"If-None-Match", b'"a"'), (b"Range", b"bytes=3-4"))
    bare = revalidate_part(part(3, 5, 10, FRESH), stored.part, Forwarded.STALE)
    assert isinstance(bare, Fetch)
    assert (bare.conditions, bare.asked) == (((b"Range", b"bytes=3-4"),), Asked.PART)


# -- conclude ------------------------------------------------------------------------------------------


def test_a_206_is_stored_only_where_a_range_was_asked_for() -> None:
    answer = came(206, {**FRESH, "Content-Range": "bytes 0-4/10", "Content-Length": "5"})
    asked = request(ranged("bytes=0-4"))
    kept = conclude(asked, None, answer, PLAIN, NOW, Asked.PART)
    assert isinstance(kept, Store)
    assert (kept.stored.part, kept.stored.length, kept.stored.status) == (Part(0, 5, 10), 5, 206)
    assert conclude(asked, None, answer, PLAIN, NOW) == Discard(NotStored.PARTIAL, remember=False)
    broken = came(206, {**FRESH, "Content-Range": "bytes 0-4"})
    assert conclude(asked, None, broken, PLAIN, NOW, Asked.PART) == Discard(NotStored.PARTIAL, remember=False)
    complete = conclude(asked, None, came(200, FRESH), PLAIN, NOW, Asked.PART)
    assert isinstance(complete, Store)
    assert complete.stored.part is None


def rest(given: dict[str, str], said: str = "bytes 5-9/10") -> dict[str, str]:
    return {**given, "Content-Range": said}


def test_the_rest_is_joined() -> None:
    stored = part(0, 5, 10, {**TAGGED, "X": "old", "Y": "kept"})
    answer = came(206, rest({CC: "max-age=600", "ETag": '"a"', "X": "new", "Age": "7"}))
    joined = conclude(request(), stored, answer, PLAIN, NOW, Asked.REST)
    assert isinstance(joined, Join)
    assert (joined.before, joined.after, joined.size, joined.head.status) == (5, 5, 5, 200)
    assert isinstance(joined.then, Store)
    made = joined.then.stored
    assert (made.part, made.length, made.status) == (None, 10, 200)
    assert (made.headers.get("x"), made.headers.get("y"), made.headers.get("content-range")) == (
        "new",
        "kept",
        None,
    )
    assert (made.freshness.lifetime, made.freshness.initial_age) == (600, 7)


def test_a_larger_part_is_made_where_that_is_what_is_wanted() -> None:
    stored = part(0, 5, 10, TAGGED)
    asked = request(ranged("bytes=3-7"))
    joined = conclude(asked, stored, came(206, rest(TAGGED, "bytes 5-7/10")), PLAIN, NOW, Asked.REST)
    assert isinstance(joined, Join)
    assert isinstance(joined.then, Store)
    assert joined.then.stored.part == Part(0, 8, 10)
    # What is sent overlaps, which is as good, or lacks something.
    wider = conclude(asked, stored, came(206, rest(TAGGED, "bytes 4-8/10")), PLAIN, NOW, Asked.REST)
    assert isinstance(wider, Join)
    assert (wider.before, wider.after) == (4, 5)
    short = conclude(asked, stored, came(206, rest(TAGGED, "bytes 5-6/10")), PLAIN, NOW, Asked.REST)
    assert short == Refetch()
    # The origin has come to forbid storing: a part larger than what was asked for is nobody's answer then.
    private = came(206, rest({CC: "private", "ETag": '"a"'}, "bytes 5-7/10"))
    assert conclude(asked, stored, private, PLAIN, NOW, Asked.REST) == Refetch()
    whole = conclude(
        request(), stored, came(206, rest({CC: "private", "ETag": '"a"'})), PLAIN, NOW, Asked.REST
    )
    assert isinstance(whole, Join)
    assert whole.then == Discard(NotStored.RESPONSE_PRIVATE, remember=True)


@pytest.mark.parametrize(
    ("status", "given"),
    [
        (206, rest({**FRESH, "ETag": '"b"'})),
        (206, rest({**FRESH, "ETag": 'W/"a"'})),
        (206, rest(FRESH)),
        (206, rest(TAGGED, "bytes 6-9/10")),
        (206, rest(TAGGED, "bytes 5-9/11")),
        (206, rest(TAGGED, "bytes 5-8/10")),
        (206, rest(TAGGED, "bytes 5-/10")),
        (206, rest({**TAGGED, "Content-Encoding": "gzip"})),
        (206, rest({**TAGGED, "Content-Length": "4"})),
        (206, {**TAGGED, "Content-Type": "multipart/byteranges; boundary=x"}),
        (304, TAGGED),
        (416, {"Content-Range": "bytes */5"}),
    ],
)
def test_what_cannot_be_joined_is_asked_for_again(status: int, given: dict[str, str]) -> None:
    stored = part(0, 5, 10, TAGGED)
    assert conclude(request(), stored, came(status, given), PLAIN, NOW, Asked.REST) == Refetch()


def test_the_rest_of_nothing() -> None:
    answer = came(206, rest(TAGGED))
    for stored in (None, whole(TAGGED), part(0, 5, 10, TAGGED, length=4), part(0, 5, 10, FRESH)):
        assert conclude(request(), stored, answer, PLAIN, NOW, Asked.REST) == Refetch()
    kept = conclude(request(), part(0, 5, 10, TAGGED), came(200, FRESH), PLAIN, NOW, Asked.REST)
    assert isinstance(kept, Store)
    assert kept.stored.part is None


def test_a_304_refreshes_a_part() -> None:
    stored = part(0, 5, 10, {**TAGGED, "X": "old"})
    asked = request(ranged("bytes=1-2"))
    fresh = conclude(
        asked, stored, came(304, {**TAGGED, "X": "new"}, at=NOW + 100), PLAIN, NOW + 100, Asked.PART
    )
    assert isinstance(fresh, Refresh)
    assert (fresh.stored.part, fresh.stored.status) == (Part(0, 5, 10), 206)
    assert fresh.stored.headers.get("x") == "new"
    assert fresh.stored.freshness.is_fresh(NOW + 100)


def test_a_part_takes_the_place_of_an_error_only_for_what_it_has() -> None:
    stored = part(0, 5, 10, {CC: "max-age=60, stale-if-error=600", "ETag": '"a"'})
    failed = came(503, {}, at=NOW + 100)
    served = conclude(request(ranged("bytes=1-2")), stored, failed, PLAIN, NOW + 100, Asked.PART)
    assert type(served).__name__ == "ServeStaleOnError"
    for asked in (request(), request(ranged("bytes=1-8"))):
        assert isinstance(conclude(asked, stored, failed, PLAIN, NOW + 100, Asked.REST), Discard)

    assert conclude(request(), stored, Failed(OriginFailure.RESET), PLAIN, NOW + 100) == GiveUp(
        OriginFailure.RESET
    )


@pytest.mark.parametrize(
    ("given", "forgotten"),
    [
        ({"ETag": '"a"', "Content-Length": "10"}, False),
        ({}, False),
        ({"Content-Length": "11"}, True),
        ({"ETag": '"b"'}, True),
    ],
)
def test_a_head_answer_that_describes_something_else_ends_a_part(
    given: dict[str, str], forgotten: bool
) -> None:
    stored = part(0, 5, 10, TAGGED)
    said = conclude(request(method="HEAD"), stored, came(200, {**FRESH, **given}), PLAIN, NOW)
    assert isinstance(said, Discard)
    assert said.forget is forgotten


def test_a_whole_answer_that_is_not_stored_ends_a_part_unless_it_is_the_same() -> None:
    stored = part(0, 5, 10, TAGGED)
    limits = Overrides(max_object=9)
    for etag, forgotten in (('"a"', False), ('"b"', True)):
        answer = came(200, {**FRESH, "ETag": etag, "Content-Length": "10"})
        said = conclude(request(), stored, answer, limits, NOW)
        assert said == Discard(NotStored.TOO_LARGE, remember=True, forget=forgotten)


# -- the property --------------------------------------------------------------------------------------


@given(st.data())
def test_what_a_part_gives_is_what_the_whole_would_give(data: st.DataObject) -> None:
    total = data.draw(st.integers(1, 40))
    start = data.draw(st.integers(0, total - 1))
    stop = data.draw(st.integers(start + 1, total))
    first = data.draw(st.none() | st.integers(0, 45))
    last = data.draw(st.integers(first or 0, 50) if first is not None else st.integers(1, 50))
    if first is not None and data.draw(st.booleans()):
        text = f"bytes={first}-"
    else:
        text = f"bytes={'' if first is None else first}-{last}"
    asked = request({"Range": text})
    from_whole = deliver(asked, whole(TAGGED, length=total), PLAIN, NOW)
    body = bytes(range(total))
    served = decide(asked, part(start, stop, data.draw(st.sampled_from([total, None])), TAGGED), PLAIN, NOW)
    if isinstance(served, Serve) and served.form is Form.PARTIAL:
        a, b = served.ranges[0]
        kept = body[start:stop][a - served.at : b - served.at]
        c, d = from_whole.ranges[0]
        assert kept == body[c:d]
    elif isinstance(served, Serve):
        assert served.form is from_whole.form is Form.NOT_SATISFIABLE
