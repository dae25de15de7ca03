"""What is remembered by shape against ``conclude``: the same conclusion for every answer."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.policy import shape
from edgeproxy.policy.conclude import conclude
from edgeproxy.policy.decisions import Asked, Conclusion, Discard, Failed, OriginAnswer, Refetch, Store
from edgeproxy.policy.head import Headers, RequestHead, ResponseHead
from edgeproxy.policy.http_date import format_http_date
from edgeproxy.policy.shape import Conclusions, Plan
from edgeproxy.policy.stored import Freshness, Overrides, Stored, Unsafe
from edgeproxy.policy.vocabulary import OriginFailure

NOW = 1_700_000_000.0
PATHS = ["/a", "/a.css", "/b/x%2ejs"]
PLAIN = RequestHead("GET", "http", "e.test", "/a", Headers.of([("Host", "e.test"), ("X-Lang", "de")]))

POLICIES = [
    Overrides(),
    Overrides(ttl=30.0, stale_while_revalidate=5.0),
    Overrides(ttl_min=10.0),
    Overrides(ttl_max=10.0),
    Overrides(status_ttl={404: 5.0, 5: 0.0}),
    Overrides(unsafe=frozenset({Unsafe.SET_COOKIE, Unsafe.NO_STORE})),
    Overrides(max_object=100),
    Overrides(no_store=True),
]
FIELDS = [
    ("Cache-Control", ["max-age=60", "s-maxage=5", "no-store", "private", "no-cache", "max-age=0", "public",
                       "max-age=9, must-revalidate", 'max-age=60, no-cache="etag"']),
    ("CDN-Cache-Control", ["max-age=7", "no-store"]),
    ("Date", [format_http_date(NOW), format_http_date(NOW - 100), format_http_date(NOW + 100), "yesterday"]),
    ("Expires", [format_http_date(NOW + 50), "0"]),
    ("ETag", ['"a"', 'W/"b"']),
    ("Last-Modified", [format_http_date(NOW - 5000), "once"]),
    ("Content-Length", ["5", "500", "00009", "x", "1" * 20]),
    ("Age", ["3", "70", "x"]),
    ("Vary", ["X-Lang", "*", "Accept-Encoding"]),
    ("Set-Cookie", ["a=b"]),
    ("Connection", ["X-Other"]),
    ("X-Other", ["1", "2"]),
    ("Content-Type", ["text/html", "text/css", "text/event-stream"]),
]  # fmt: skip


@st.composite
def heads(draw: st.DrawFn) -> ResponseHead:
    chosen = draw(st.lists(st.sampled_from(FIELDS), max_size=8))
    fields = [(name, draw(st.sampled_from(values))) for name, values in chosen]
    if draw(st.booleans()):
        fields.append(("Date", format_http_date(NOW - draw(st.integers(-5, 90)))))
    status = draw(st.sampled_from([200, 200, 200, 204, 206, 301, 404, 500, 304]))
    return ResponseHead(status, "", Headers.of(fields))


def same(one: Conclusion, other: Conclusion) -> bool:
    """Equal, but for the last bits of sums of seconds."""
    if not isinstance(one, Store) or not isinstance(other, Store):
        return one == other
    mine, theirs = one.stored.freshness, other.stored.freshness
    near = math.isclose(mine.lifetime, theirs.lifetime, abs_tol=1e-6)
    near = near and math.isclose(mine.initial_age, theirs.initial_age, abs_tol=1e-6)
    alike = replace(mine, lifetime=0.0, initial_age=0.0) == replace(theirs, lifetime=0.0, initial_age=0.0)
    same_rest = replace(one.stored, freshness=theirs) == other.stored and one.withheld == other.withheld
    return near and alike and same_rest


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from(PATHS), heads()), min_size=1, max_size=6),
    st.sampled_from(POLICIES),
    st.floats(0, 3),
)
def test_the_same_conclusion_as_conclude(
    answers: list[tuple[str, ResponseHead]], overrides: Overrides, delay: float
) -> None:
    known = Conclusions()
    for _ in range(2):
        for path, head in answers:
            request = replace(PLAIN, target=path)
            # Fresh objects each time, as from the wire.
            raw = tuple((bytes(bytearray(n)), bytes(bytearray(v))) for n, v in head.headers.raw)
            again = ResponseHead(head.status, head.reason, Headers(raw))
            answer = OriginAnswer(again, NOW - delay, NOW)
            concluded = known.conclude(request, None, answer, overrides, NOW)
            assert same(concluded, conclude(request, None, answer, overrides, NOW))


def answer_with(*fields: tuple[str, str], status: int = 200) -> OriginAnswer:
    return OriginAnswer(ResponseHead(status, "", Headers.of(fields)), NOW, NOW)


GOOD = (
    ("Date", format_http_date(NOW)),
    ("Cache-Control", "max-age=60"),
    ("Content-Length", "5"),
    ("ETag", '"1"'),
)


def test_what_differs_is_put_in() -> None:
    known, overrides = Conclusions(), Overrides()
    known.conclude(PLAIN, None, answer_with(*GOOD), overrides, NOW)
    other = answer_with(GOOD[0], GOOD[1], ("Content-Length", "77"), ("ETag", '"2"'))
    concluded = known.conclude(PLAIN, None, other, overrides, NOW)
    assert isinstance(concluded, Store)
    assert (concluded.stored.length, concluded.stored.etag) == (77, '"2"')


def test_a_shape_that_is_known_is_not_concluded_anew() -> None:
    known, overrides = Conclusions(), Overrides()
    no_store = (("Cache-Control", "no-store"), ("Date", format_http_date(NOW)))
    first = known.conclude(PLAIN, None, answer_with(*no_store), overrides, NOW)
    assert isinstance(first, Discard)
    assert known.conclude(PLAIN, None, answer_with(*no_store), overrides, NOW) is first


def test_what_is_not_plain_is_left_to_conclude() -> None:
    known, overrides = Conclusions(), Overrides()
    failed = Failed(OriginFailure.REFUSED)
    assert known.conclude(PLAIN, None, failed, overrides, NOW) == conclude(
        PLAIN, None, failed, overrides, NOW
    )
    stored = Stored(200, "", Headers.of(GOOD), Freshness(NOW - 100, 0.0, 60.0), 5)
    for request, old in (
        (replace(PLAIN, method="HEAD"), None),
        (replace(PLAIN, has_body=True), None),
        (replace(PLAIN, headers=Headers.of([("Authorization", "x")])), None),
        (PLAIN, stored),
    ):
        for _ in range(2):
            concluded = known.conclude(request, old, answer_with(*GOOD), overrides, NOW)
            assert concluded == conclude(request, old, answer_with(*GOOD), overrides, NOW)


def test_a_long_list_of_names_is_left_to_conclude() -> None:
    known, overrides = Conclusions(), Overrides()
    answer = answer_with(*GOOD, *((f"X-{number}-{'n' * 200}", "x") for number in range(20)))
    concluded = known.conclude(PLAIN, None, answer, overrides, NOW)
    assert same(concluded, conclude(PLAIN, None, answer, overrides, NOW))
    assert not known._by_policy


def test_parts_are_left_to_conclude() -> None:
    """The same octets are a part where one was asked for, and nothing to store where the whole was."""
    known, overrides = Conclusions(), Overrides()
    part = answer_with(*GOOD, ("Content-Range", "bytes 0-4/10"), status=206)
    for answer in (part, answer_with(*GOOD)):
        for asked in (Asked.PART, Asked.WHOLE) * 2:
            concluded = known.conclude(PLAIN, None, answer, overrides, NOW, asked)
            assert same(concluded, conclude(PLAIN, None, answer, overrides, NOW, asked))
            assert isinstance(concluded, Store) is (answer is not part or asked is Asked.PART)
    # To a question for the rest it only says that there is none; as an answer it is the client's.
    beyond = answer_with(("Cache-Control", "no-store"), ("Date", format_http_date(NOW)), status=416)
    for asked in (Asked.WHOLE, Asked.REST) * 2:
        concluded = known.conclude(PLAIN, None, beyond, overrides, NOW, asked)
        assert isinstance(concluded, Discard if asked is Asked.WHOLE else Refetch)


LATER = ("Last-Modified", format_http_date(NOW - 9))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (GOOD, (("Date", "yesterday"), *GOOD[1:])),
        ((("Date", "yesterday"), *GOOD[1:]), GOOD),
        (GOOD, (*GOOD[:2], ("Content-Length", "x"), GOOD[3])),
        (GOOD, (*GOOD[:2], ("Content-Length", "1" * 30), GOOD[3])),
        (GOOD, (*GOOD[:2], ("Content-Length", str(2**40)), GOOD[3])),
        (GOOD, (("Date", format_http_date(NOW - 90)), *GOOD[1:])),
        ((*GOOD[:3], LATER), (*GOOD[:3], ("Last-Modified", "once"))),
        ((*GOOD[:3], LATER), (*GOOD[:3], ("Last-Modified", format_http_date(NOW)))),
        ((*GOOD[:3], ("Last-Modified", "once")), (*GOOD[:3], LATER)),
        (GOOD[:2], GOOD[:2]),
        ((*GOOD, ("Vary", "X-Lang")), (*GOOD, ("Vary", "X-Lang"))),
        (
            (GOOD[0], ("Cache-Control", "no-transform"), ("Connection", "cache-control")),
            (GOOD[0], ("Cache-Control", "no-transform"), ("Connection", "cache-control")),
        ),
    ],
)
@pytest.mark.parametrize("overrides", [Overrides(), Overrides(ttl=5.0)])
def test_one_shape_and_another_value(
    first: tuple[tuple[str, str], ...], second: tuple[tuple[str, str], ...], overrides: Overrides
) -> None:
    known = Conclusions()
    for fields in (first, second, first, second):
        concluded = known.conclude(PLAIN, None, answer_with(*fields), overrides, NOW)
        assert same(concluded, conclude(PLAIN, None, answer_with(*fields), overrides, NOW))


def test_the_memory_is_bounded() -> None:
    known, overrides = Conclusions(), Overrides()
    for number in range(shape.MOST_SHAPES + 10):
        known.conclude(PLAIN, None, answer_with(*GOOD, ("X-Other", str(number))), overrides, NOW)
    [(_, plans)] = known._by_policy.values()
    assert len(plans) <= shape.MOST_SHAPES
    known.conclude(PLAIN, None, answer_with(*GOOD, ("X-Other", "x" * 5000)), overrides, NOW)
    assert all(len(str(key)) < 5000 for key in plans)
    policies = [Overrides(ttl=float(n)) for n in range(shape.MOST_POLICIES + 10)]
    for policy in policies:
        known.conclude(PLAIN, None, answer_with(*GOOD), policy, NOW)
    assert len(known._by_policy) <= shape.MOST_POLICIES


def test_the_plan_of_a_shape() -> None:
    """What is remembered can be asked for, of any answer of the shape, once one has been concluded."""
    overrides, conclusions = Overrides(), Conclusions()
    head = ResponseHead(200, "", Headers.of(GOOD))
    assert conclusions.plan("/a", head, overrides) is None
    concluded = conclusions.conclude(PLAIN, None, OriginAnswer(head, NOW, NOW), overrides, NOW)
    plan = conclusions.plan("/b", head, overrides)
    assert isinstance(plan, Plan)
    assert isinstance(concluded, Store)
    assert plan.stored == concluded.stored
    assert plan.times(NOW - 10, NOW, NOW) == (10.0, concluded.stored.freshness.lifetime)
    assert plan.times(NOW - 1000, NOW, NOW) is None
    private = ResponseHead(200, "", Headers.of([("Cache-Control", "private")]))
    conclusions.conclude(PLAIN, None, OriginAnswer(private, NOW, NOW), overrides, NOW)
    assert isinstance(conclusions.plan("/a", private, overrides), Discard)
    endless = ResponseHead(200, "", Headers.of([("X-" + "x" * 3000, "1")]))
    assert conclusions.plan("/a", endless, overrides) is None
