"""Which parameters and fields tell answers apart without changing them."""

from __future__ import annotations

from edgeproxy.earned.splits import LEAST, MEMO, MOST_NAMES, MOST_PARTS, QUERY, WITHIN, Splits, useless


def query(**values: str) -> list[tuple[str, str, str | None]]:
    return [(QUERY, name, value) for name, value in values.items()]


def test_what_never_makes_a_difference() -> None:
    splits = Splits()
    for number in range(LEAST):
        for source in ("mail", "web"):
            splits.stored("r", f"h/{number}", query(page="1", utm=source), number, 0.0)
        splits.stored("r", f"h/{number}", query(page="2", utm="web"), 1000 + number, 0.0)
    told = splits.told()["r"]["query"]
    assert told["utm"] == {"same": LEAST, "different": 0, "bodies": 3}
    assert told["page"]["different"] == LEAST
    assert useless({"query": told}) == [("query", "utm", LEAST)]


def test_to_be_absent_is_a_value_too() -> None:
    splits = Splits()
    for number in range(LEAST):
        splits.bare(f"h/{number}", number, 0.0)
        splits.stored("r", f"h/{number}", query(utm="x"), number, 0.0)
        splits.stored("r", f"h/b{number}", query(page="1"), number, 0.0)
        splits.stored("r", f"h/b{number}", query(page="1", ref="x"), number, 0.0)
    assert useless({"query": splits.told()["r"]["query"]}) == [
        ("query", "ref", LEAST),
        ("query", "utm", LEAST),
    ]


def test_one_body_for_all_is_no_evidence() -> None:
    splits = Splits()
    for number in range(3 * LEAST):
        for value in "ab":
            splits.stored("r", f"h/{number}", query(q=value), 1, 0.0)
    assert useless({"query": splits.told()["r"]["query"]}) == []


def test_what_has_changed_meanwhile_is_no_difference() -> None:
    splits = Splits()
    splits.stored("r", "h/a", query(q="1"), 1, 0.0)
    splits.stored("r", "h/a", query(q="2"), 2, WITHIN + 1)
    splits.stored("r", "h/a", query(q="2"), 3, WITHIN + 1)  # the same key again
    assert splits.told() == {}


def test_fields_beside_parameters() -> None:
    splits = Splits()
    for number in range(LEAST):
        for agent in ("cat", "dog", None):
            parts = [*query(q="1"), ("header", "user-agent", agent)]
            splits.stored("r", f"h/{number}", parts, number, 0.0)
    assert useless(splits.told()["r"]) == [("header", "user-agent", 2 * LEAST)]


def test_it_is_bounded() -> None:
    splits = Splits()
    for number in range(MEMO):
        splits.stored("r", "h/a", [(QUERY, f"n{number}", "1")], number, 0.0)
    assert len(splits._young) + len(splits._old) <= MEMO
    splits.stored("r", "h/x", query(**{f"p{i}": "1" for i in range(MOST_PARTS + 1)}), 1, 0.0)
    for number in range(MOST_NAMES + 20):
        for value in "ab":
            splits.stored("r", "h/b", [(QUERY, f"n{number}", value)], number, 0.0)
    assert len(splits.told()["r"]["query"]) <= MOST_NAMES
