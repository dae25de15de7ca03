"""Two rule sets on one stream: who answers for which key, and what is counted of the rest."""

from __future__ import annotations

from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.rules.differences import MOST_PAIRS, MOST_SAMPLES, Differences, together
from edgeproxy.rules.load import load_text
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.split import Split

OLD = load_text(
    """
rules:
  - {name: api, match: {path: "/api/{id}"}, ttl: 1m, key: {query: {ignore: [utm]}}}
  - {name: rest, match: {path: "/**"}, ttl: 1m}
"""
)
NEW = load_text(
    """
rules:
  - {name: api, match: {path: "/api/{id}"}, ttl: 5m, key: {query: {ignore: [utm]}}}
  - {name: rest, match: {path: "/**"}, ttl: 1m}
"""
)


def get(target: str) -> RequestHead:
    return RequestHead("GET", "http", "h", target, Headers())


def side(split: Split, target: str) -> str:
    return "new" if split.match(get(target)).rule in NEW.rules else "old"


def test_a_key_stays_on_its_side_and_more_come_over() -> None:
    before: set[str] = set()
    targets = [f"/api/{i}" for i in range(600)]
    for percent in (0, 1, 10, 50, 99, 100):
        split = Split(OLD, NEW, percent, Differences(10**9))
        over = {target for target in targets if side(split, target) == "new"}
        assert before <= over
        assert abs(len(over) / 6 - percent) < 6
        assert all(side(split, f"{target}?utm=x") == side(split, target) for target in targets[:50])
        before = over
    assert len(before) == len(targets)


def test_one_in_so_many_is_compared_and_a_shadow_answers_nothing() -> None:
    differences = Differences(3, lambda target: target.upper())
    split = Split(OLD, NEW, 0, differences)
    plain = Matcher(OLD)
    for number in range(9):
        asked = get(f"/api/{number}")
        assert split.match(asked) == plain.match(asked)
    told = differences.told()
    assert (told["compared"], told["differing"]) == (3, 3)
    (pair,) = told["pairs"]
    assert (pair["old"]["name"], pair["requests"]) == ("api", 3)
    assert pair["changes"] == [{"field": "ttl", "old": "1m", "new": "5m", "requests": 3}]
    assert pair["samples"] == ["GET h/API/0", "GET h/API/3", "GET h/API/6"]


def test_what_is_alike_is_no_difference() -> None:
    differences = Differences(1)
    split = Split(OLD, NEW, 0, differences)
    for _ in range(2):
        split.match(get("/other"))
    assert differences.told() == {"compared": 2, "differing": 0, "pairs": []}


def test_what_is_kept_is_bounded() -> None:
    def rules(ttl: int) -> str:
        each = (f"  - {{name: r{i}, match: {{path: /{i}}}, ttl: {ttl}m}}" for i in range(MOST_PAIRS + 20))
        return "rules:\n" + "\n".join(each)

    differences = Differences(1)
    split = Split(load_text(rules(1)), load_text(rules(2)), 0, differences)
    for number in range(MOST_PAIRS + 20):
        split.match(get(f"/{number}"))
    for number in range(20):
        split.match(get(f"/0?{number}"))
    told = differences.told()
    assert told["differing"] == MOST_PAIRS + 40
    assert len(told["pairs"]) == MOST_PAIRS
    assert (told["pairs"][0]["requests"], len(told["pairs"][0]["samples"])) == (21, MOST_SAMPLES)


def test_what_several_workers_have_seen() -> None:
    one, other = Differences(1), Differences(1)
    for differences, targets in ((one, ["/api/1", "/x"]), (other, ["/api/1", "/api/2"])):
        split = Split(OLD, NEW, 0, differences)
        for target in targets:
            split.match(get(target))
    told = together([one.told(), other.told()])
    assert (told["compared"], told["differing"]) == (4, 3)
    (pair,) = told["pairs"]
    assert (pair["requests"], pair["changes"][0]["requests"]) == (3, 3)
    assert pair["samples"] == ["GET h/api/1", "GET h/api/2"]
    assert together([]) == {"compared": 0, "differing": 0, "pairs": []}


def test_a_purge_by_url_reaches_what_either_has_stored() -> None:
    split = Split(OLD, NEW, 50, Differences())
    assert [m.rule.overrides.ttl for m in split.candidates("h", "/api/1")] == [60.0, 60.0, 300.0, 60.0]
