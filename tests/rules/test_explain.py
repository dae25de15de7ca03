"""Explanations: what they say is what the policy does."""

from __future__ import annotations

import json

import pytest

from edgeproxy.policy.head import Headers, RequestHead, ResponseHead
from edgeproxy.rules.explain import Explanation, explain
from edgeproxy.rules.load import load_text
from edgeproxy.rules.match import Matcher

RULES = """
rules:
  - name: beta
    match: {path: "/api/pitches/**", headers: {x-beta: true}}
    ttl: 1s
  - name: other-host
    match: {path: "/api/**", host: other.example}
  - name: static
    match: {path: "/static/**"}
    ttl: 7d
  - name: pitches
    match: {path: ["/api/pitches/{id}", "/api/pitches/**"]}
    ttl: 15m
    stale_while_revalidate: 1m
    stale_if_error: 1h
    key: {query: {ignore: ["utm_*"]}}
    cache_control: "public, max-age=5"
    tags: ["pitch:{id}"]
    invalidates: {on: PUT, tags: ["pitch:{id}"]}
  - name: never
    match: {path: "/api/pitches/7"}
"""


def explained(
    target: str, method: str = "GET", answer: ResponseHead | None = None, **headers: str
) -> Explanation:
    request = RequestHead(method, "http", "h.example", target, Headers.of(headers.items()))
    return explain(Matcher(load_text(RULES)), request, answer)


def answered(status: int = 200, **headers: str) -> ResponseHead:
    fields = [(n.replace("_", "-"), v) for n, v in headers.items()]
    return ResponseHead(status, "", Headers.of([("Content-Type", "text/html"), *fields]))


def test_all_of_it_as_data() -> None:
    data = explained("/api/pitches/7?utm_source=x").to_json()
    assert data["rule"] == {"name": "pitches", "at": "rules.yaml:11"}
    assert {each["name"]: each["why"] for each in data["lost"]} == {
        "beta": "header x-beta", "other-host": "host", "static": "path", "never": "an earlier rule matched",
    }  # fmt: skip
    assert data["parts"] == {"id": "7"}
    assert data["key_target"] == "/api/pitches/7"
    assert (data["decision"], data["stored"], data["reason"]) == ("cache", True, None)
    assert (data["ttl"], data["stale_while_revalidate"], data["stale_if_error"]) == (900, 60, 3600)
    assert data["ttl_source"] == "rule"
    assert data["tags"] == ["pitch:7"]
    assert data["clients"] == {"cache_control": "public, max-age=5", "cdn_cache_control": None}
    assert data["answer"] == {"status": 200, "assumed": True, "source": "assumed", "age": None}
    assert data["otherwise"] is None
    json.dumps(data)


def test_as_text() -> None:
    lines = explained("/api/pitches/7").text().splitlines()
    assert "rule     pitches (rules.yaml:11)  id=7" in lines
    assert (
        "cache    stored for 15m (the rule's ttl); then stale for 1m while it is refreshed; "
        "stale for 1h if the origin fails"
    ) in lines
    assert lines[-1] == "lost     static (rules.yaml:8): path"


@pytest.mark.parametrize(
    ("answer", "headers", "reason", "without", "needs"),
    [
        (answered(set_cookie="a=b"), {}, "set-cookie", ["set-cookie"], "unsafe: [set_cookie]"),
        (
            answered(set_cookie="a=b", cache_control="private"), {},
            "response-private", ["response-private", "set-cookie"], "unsafe: [private, set_cookie]",
        ),
        (answered(), {"Authorization": "x"}, "authorization", ["authorization"], "unsafe: [authorization]"),
        (answered(cache_control="no-store"), {}, "response-no-store", ["response-no-store"],
         "unsafe: [no_store]"),
    ],
)  # fmt: skip
def test_what_it_would_take(
    answer: ResponseHead, headers: dict[str, str], reason: str, without: list[str], needs: str
) -> None:
    data = explained("/api/pitches/7", answer=answer, **headers).to_json()
    assert (data["stored"], data["reason"]) == (False, reason)
    assert data["otherwise"] == {"without": without, "ttl": 900.0, "needs": needs}


def test_the_counterfactual_in_words() -> None:
    text = explained("/api/pitches/7", answer=answered(set_cookie="a=b")).text()
    assert "not stored: set-cookie" in text
    assert "would be stored for 15m without it; to store it all the same: unsafe: [set_cookie]" in text


@pytest.mark.parametrize(
    ("answer", "needs"),
    [
        (answered(content_length="99999999999"), "max_object: ..."),
        (answered(vary="*"), None),
        (answered(304), None),
    ],
)
def test_what_no_word_allows(answer: ResponseHead, needs: str | None) -> None:
    otherwise = explained("/api/pitches/7", answer=answer).to_json()["otherwise"]
    assert (otherwise["ttl"], otherwise["needs"]) == (None, needs)


def test_a_write_is_passed_and_says_what_it_purges() -> None:
    explanation = explained("/api/pitches/7", "PUT")
    data = explanation.to_json()
    assert (data["decision"], data["reason"], data["otherwise"]) == ("pass", "method-not-cacheable", None)
    assert data["purges"] == [{"kind": "tag", "value": "pitch:7", "soft": False}]
    assert "purges   tag pitch:7" in explanation.text()


def test_head_is_answered_from_what_get_stores_and_stores_nothing() -> None:
    explanation = explained("/api/pitches/7", "HEAD")
    data = explanation.to_json()
    assert (data["decision"], data["stored"], data["ttl"]) == ("cache", False, None)
    assert (data["reason"], data["tags"], data["otherwise"]) == ("method-not-cacheable", [], None)
    assert data["get"] == {"stored": True, "reason": None, "ttl": 900.0}
    assert data["clients"]["cache_control"] == "public, max-age=5"
    text = explanation.text()
    assert "cache    answered from what a GET stored; does not fill the cache" in text
    assert "of a GET: stored for 15m (the rule's ttl)" in text


def test_a_head_says_what_keeps_a_get_from_storing() -> None:
    data = explained("/api/pitches/7", "HEAD", answered(set_cookie="a=b")).to_json()
    assert data["get"] == {"stored": False, "reason": "set-cookie", "ttl": None}
    assert data["otherwise"]["needs"] == "unsafe: [set_cookie]"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "QUERY"])
def test_other_methods_are_passed(method: str) -> None:
    explanation = explained("/api/pitches/7", method)
    assert explanation.to_json()["stored"] is False
    assert explanation.to_json()["get"] is None
    assert (
        "passed: method-not-cacheable (only GET and HEAD are answered from the cache)" in explanation.text()
    )


@pytest.mark.parametrize(
    ("target", "answer", "said"),
    [
        ("/api/pitches/7", answered(404), "to store it, the rule needs status_ttl: {404: 1m}"),
        ("/api/pitches/7", answered(503), "to store it, the rule needs status_ttl: {503: 1m}"),
        ("/api/pitches/7", answered(412), "no rule can store it"),
        (
            "/api/pitches/7", answered(404, set_cookie="a=b"),
            "to store it, the rule needs unsafe: [set_cookie] and status_ttl: {404: 1m}",
        ),
        ("/elsewhere", answered(), "no rule matches; a rule with a ttl would store it"),
        ("/elsewhere", answered(302), "no rule matches; a rule with a ttl would store it"),
        ("/elsewhere", answered(404), "no rule matches; a rule with status_ttl: {404: 1m} would store it"),
        (
            "/elsewhere", answered(set_cookie="a=b", cache_control="max-age=9"),
            "no rule matches; a rule with unsafe: [set_cookie] would store it",
        ),
    ],
)  # fmt: skip
def test_the_line_to_write(target: str, answer: ResponseHead, said: str) -> None:
    assert f"{said}\n" in explained(target, answer=answer).text()


@pytest.mark.parametrize(("line", "status"), [("status_ttl: {404: 1m}", 404), ("ttl: 15m", 200)])
def test_the_line_named_is_the_line_that_helps(line: str, status: int) -> None:
    rules = load_text(f"rules: [{{name: a, match: {{path: /a}}, {line}}}]")
    request = RequestHead("GET", "http", "h.example", "/a", Headers.of([]))
    assert explain(Matcher(rules), request, answered(status)).outcome.cached


def test_a_lifetime_by_status_is_called_so() -> None:
    rules = load_text("rules: [{name: a, match: {path: /a}, ttl: 15m, status_ttl: {404: 1m}}]")
    request = RequestHead("GET", "http", "h.example", "/a", Headers.of([]))
    assert "stored for 1m (the rule's status_ttl)" in explain(Matcher(rules), request, answered(404)).text()
    assert "stored for 15m (the rule's ttl)" in explain(Matcher(rules), request, answered(200)).text()


def test_the_key_line_is_left_out_where_the_key_says_so_already() -> None:
    rules = load_text("rules: [{name: a, match: {path: /a}, ttl: 1m, key: {headers: [authorization]}}]")
    request = RequestHead("GET", "http", "h.example", "/a", Headers.of([("Authorization", "x")]))
    said = explain(Matcher(rules), request).text()
    assert "to store it all the same: unsafe: [authorization]\n" in said


def test_without_a_rule_the_answer_speaks() -> None:
    explanation = explained("/elsewhere", answer=answered(cache_control="max-age=60, stale-if-error=5"))
    data = explanation.to_json()
    assert data["rule"] == {"name": "none", "at": "built-in"}
    assert (data["ttl"], data["ttl_source"], data["stale_if_error"]) == (60, "max-age", 5)
    assert "stored for 1m (the answer's max-age)" in explanation.text()


def test_validated_always() -> None:
    explanation = explained("/elsewhere", answer=answered(cache_control="no-cache", etag='"a"'))
    assert explanation.to_json()["validate_always"]
    assert "validated with the origin before each use" in explanation.text()


def test_errors_are_not_told_the_rules_cache_control() -> None:
    data = explained("/api/pitches/7", answer=answered(404, cache_control="max-age=9")).to_json()
    assert data["clients"]["cache_control"] == "max-age=9"


def test_a_dot_segment_is_noted() -> None:
    data = explained("/static/..%2fapi/me").to_json()
    assert (data["decision"], data["reason"]) == ("pass", "rule-says-pass")
    assert "dot segment" in data["notes"][0]


@pytest.mark.parametrize(("asked", "reason"), [("bytes=0-4", None), ("bytes=0-1,3-4", "partial-content")])
def test_a_part_is_stored_where_it_is_asked_for(asked: str, reason: str | None) -> None:
    part = ResponseHead(206, "", Headers.of([("Content-Range", "bytes 0-4/10"), ("Content-Length", "5")]))
    data = explained("/static/a", answer=part, range=asked).to_json()

    assert (data["stored"], data["reason"]) == (reason is None, reason)


BODIES = """
rules:
  - name: graphql
    match: {path: /graphql}
    ttl: 1m
    key: {body: graphql}
    invalidates: {on: POST, tags: [a]}
  - {name: search, match: {path: /search}, ttl: 1m, key: {body: {as: json, methods: [POST], limit: 20}}}
  - {name: static, match: {path: "/**"}, ttl: 1h}
"""


def with_body(target: str, content: str | None, method: str = "POST") -> Explanation:
    request = RequestHead(
        method, "http", "h.example", target, Headers.of([("Content-Type", "application/json")])
    )
    octets = None if content is None else content.encode()
    return explain(Matcher(load_text(BODIES)), request, content=octets)


def test_a_body_in_the_key() -> None:
    one, two = with_body("/graphql", '{"query": "{ a }"}'), with_body("/graphql", '{"query":"{a}"}')
    data = one.to_json()
    assert (data["decision"], data["stored"], data["ttl"], data["purges"]) == ("cache", True, 60, [])
    assert data["key"] == two.to_json()["key"]
    assert data["key"].startswith("http://h.example/graphql | @POST graphql#")
    assert with_body("/graphql", '{"query": "{ a }"}', "QUERY").to_json()["key"] != data["key"]


@pytest.mark.parametrize(
    ("target", "method", "content", "reason", "needs"),
    [
        ("/graphql", "POST", '{"query": "mutation { a }"}', "body-not-a-query", None),
        ("/graphql", "POST", None, "method-not-cacheable", None),
        ("/graphql", "PUT", "{}", "method-not-cacheable", None),
        ("/graphql", "GET", "{}", "request-has-body", ""),
        ("/search", "QUERY", "{}", "method-not-cacheable", None),
        ("/search", "POST", "[" * 21, "body-over-limit", "key: {body: {limit: ...}}"),
    ],
)  # fmt: skip
def test_bodies_that_pass(
    target: str, method: str, content: str | None, reason: str, needs: str | None
) -> None:
    told = with_body(target, content, method)
    assert told.to_json()["reason"] == reason
    assert (told.otherwise.needs if told.otherwise else None) == needs


def test_what_a_question_would_have_purged_is_not_said_of_it() -> None:
    assert with_body("/graphql", '{"query": "mutation { a }"}').to_json()["purges"]
    assert any("give one (-d)" in note for note in with_body("/graphql", None).notes)
    assert not with_body("/graphql", "{}").notes


def test_a_type_that_contradicts_the_extension() -> None:
    matcher = Matcher(load_text(BODIES))
    request = RequestHead("GET", "http", "h.example", "/account/x.css")
    told = explain(matcher, request, answered())
    assert told.to_json()["reason"] == "type-contradicts-extension"
    assert told.otherwise is not None
    assert told.otherwise.needs == "extension_guard: off"
    assert explain(matcher, request).to_json()["stored"], "what is assumed is of the type that the path says"
    image = RequestHead("GET", "http", "h.example", "/a.png")
    assert explain(matcher, image).to_json()["stored"]
