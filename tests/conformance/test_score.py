from __future__ import annotations

import json
import re

import pytest

from tests.conformance.__main__ import EXPECTED
from tests.conformance.score import BY_CHOICE, Verdict, greens, judge, report, turned
from tests.conformance.suite import Case

BASE = Case("one", "base", "a base", "required", ())
NEXT = Case("one", "next", "builds on it", "optimal", ("base",))
ASKS = Case("two", "asks", "a question", "check", ())


@pytest.mark.parametrize(
    ("results", "why"),
    [
        ({"base": True, "next": True, "asks": True}, ["", "", ""]),
        ({"base": ["Assertion", "no"], "next": True, "asks": True}, ["Assertion: no", "depends on base", ""]),
        ({"base": True}, ["", "not run", "not run"]),
    ],
)
def test_green_needs_what_it_depends_on(results: dict[str, object], why: list[str]) -> None:
    assert [verdict.why for verdict in judge([BASE, NEXT, ASKS], results)] == why


def test_a_case_whose_base_is_not_among_them_says_nothing() -> None:
    assert [verdict.why for verdict in judge([NEXT], {"next": True})] == ["depends on base"]


def test_what_has_turned() -> None:
    expected = greens([Verdict(BASE, ""), Verdict(NEXT, ""), Verdict(ASKS, "no")])
    assert expected == {"required": ["base"], "optimal": ["next"], "check": []}
    now = [Verdict(BASE, "x"), Verdict(NEXT, ""), Verdict(ASKS, "no")]
    assert [verdict.case for verdict in turned(expected, now)] == [BASE]


def test_the_report_counts_by_group_and_names_what_is_red() -> None:
    text = report([Verdict(BASE, "Setup: 502"), Verdict(NEXT, ""), Verdict(ASKS, "")])
    assert re.search(r"^one +0/1 +1/1 *$", text, re.MULTILINE)
    assert re.search(r"^all +0/1 +1/1 +1/1$", text, re.MULTILINE)
    assert "  base: Setup: 502" in text


def test_nothing_that_is_red_by_choice_is_expected_to_be_green() -> None:
    expected = json.loads(EXPECTED.read_text())
    assert not {case for ids in expected.values() for case in ids} & set(BY_CHOICE)
