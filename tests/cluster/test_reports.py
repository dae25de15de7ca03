"""What is known of the other nodes, whatever the order in which looks and news arrive."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.cluster.reports import Report, Reports, read_place, read_report


def said(at: int, node: str = "n") -> Report:
    return Report(node, "name", at, (at, 0), 30_000)


def test_a_look_that_comes_late_takes_nothing_back() -> None:
    reports = Reports()
    reports.looked(1, (1, 0), {b"n/1": said(1), b"n/2": said(1)})
    reports.heard((3, 0), b"n/1", said(3))
    reports.heard((4, 0), b"n/2", None)
    reports.looked(2, (2, 0), {b"n/1": said(2), b"n/2": said(2)})  # from before both
    assert reports.by_node() == {"n": [said(3)]}
    assert reports.place == (4, 0)
    reports.looked(5, (4, 0), {b"n/2": said(5)})  # from after
    assert reports.by_node() == {"n": [said(5)]}


@settings(max_examples=50)
@given(
    changes=st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=8),
    steps=st.lists(st.integers(0, 3), max_size=20),
)
def test_what_is_known_is_the_newest_moment_that_was_seen(
    changes: list[tuple[int, bool]], steps: list[int]
) -> None:
    """The truth is a history of changes. News (0) come in its order, looks show moments of it in their order
    (so much later than the one before, less one), and either may be behind the other."""
    moments: list[dict[bytes, Report]] = [{}]
    for at, (number, ended) in enumerate(changes, 1):
        now = {name: report for name, report in moments[-1].items() if name != b"n/%d" % number}
        moments.append(now if ended else {**now, b"n/%d" % number: said(at)})
    reports = Reports()
    heard = looked = 0
    for step in steps:
        if step:
            looked = min(looked + step - 1, len(changes))
            reports.looked(looked, (looked, 0), moments[looked])
        elif heard < len(changes):
            heard += 1
            number, ended = changes[heard - 1]
            reports.heard((heard, 0), b"n/%d" % number, None if ended else said(heard))
        newest = max(heard, looked)
        assert reports.place == (newest, 0)
        known = [report.at for each in reports.by_node().values() for report in each]
        assert sorted(known) == sorted(report.at for report in moments[newest].values())


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_any_octets_are_a_report_or_none(worker: bytes, told: bytes) -> None:
    found = read_report(worker, told)
    assert found is None or found.until == found.at + found.lease


def test_what_a_report_says() -> None:
    assert read_report(b"abc/12", b"1000 5 2 30000 edge-1") == Report("abc", "edge-1", 1000, (5, 2), 30_000)
    assert read_report(b"abc/12", b"") is None
    assert read_place(b"12-3") == (12, 3)
