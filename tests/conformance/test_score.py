from __future__ import annotations

import json
import re

import pytest

from tests.conformance.__main__ import EXPECTED
from tests.conformance.score import VARIANT, Verdict, greens, judge, report, turned, unexplained, waivers
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


def test_what_is_waived_says_why_and_counts_as_red() -> None:
    waived = waivers("superseded: [{ids: [base], section: RFC 1 §2, reason: because}]")
    verdicts = [Verdict(BASE, "no"), Verdict(NEXT, "no"), Verdict(ASKS, "no")]
    text = report(verdicts, waived, [Verdict(BASE, ""), Verdict(NEXT, ""), Verdict(ASKS, "")])
    assert "  base: no\n      superseded: RFC 1 §2: because" in text
    assert re.search(r"^all +0/1 +0/1 +0/1$", text, re.MULTILINE)
    assert re.search(rf"^{VARIANT} +1/1 +1/1 +1/1$", text, re.MULTILINE)
    assert [verdict.case for verdict in unexplained(verdicts, waived)] == [NEXT]


def test_a_case_is_waived_once() -> None:
    with pytest.raises(ValueError, match="waived twice"):
        waivers("rule: [{ids: [a, a], section: s, reason: r}]")


def test_nothing_that_is_waived_is_expected_to_be_green() -> None:
    expected, waived = json.loads(EXPECTED.read_text()), waivers()
    variant = set(expected.pop(VARIANT))
    assert not {case for ids in expected.values() for case in ids} & set(waived)
    assert {case for case in variant if waived[case].group != "rule"} == set()
    assert all(waiver.section.startswith("RFC 9") and waiver.reason for waiver in waived.values())
