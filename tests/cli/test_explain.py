"""``edgeproxy explain``: as text, as JSON, and what it does not take."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Done

    Run = Callable[..., Done]
    Written = Callable[..., Path]

RULES = """
rules:
  - {name: own, match: {path: "/me/**"}, pass: true}
  - {name: german, match: {path: "/**", headers: {accept-language: "~de.*"}}, ttl: 1m}
  - {name: api, match: {path: "/api/{id}", host: "a.example"}, ttl: 15m, tags: ["item:{id}"]}
"""


@pytest.fixture
def ask(run: Run, written: Written) -> Callable[..., dict[str, Any]]:
    directory = written(a=RULES)

    def explained(*words: str) -> dict[str, Any]:
        done = run("explain", *words, "--rules", str(directory), "--format", "json")
        assert (done.code, done.err) == (0, "")
        told: dict[str, Any] = json.loads(done.out)
        return told

    return explained


def test_as_text(run: Run) -> None:
    done = run("explain", "/api/pitches/7")
    assert (done.code, done.err) == (0, "")
    first, second, third, *_ = done.out.splitlines()
    assert first == "request  GET http://localhost/api/pitches/7"
    assert second == "answer   200 (assumed)"
    assert third.startswith("rule     pitches (40-pitches.yaml:")
    assert "cache    stored for 15m" in done.out


def test_which_rule_and_why_not_the_others(ask: Callable[..., dict[str, Any]]) -> None:
    told = ask("http://a.example/api/7?x=1")
    assert told["rule"] == {"name": "api", "at": "a.yaml:5"}
    assert told["parts"] == {"id": "7"}
    assert told["tags"] == ["item:7"]
    assert (told["stored"], told["ttl"]) == (True, 900)
    assert [lost["name"] for lost in told["lost"]] == ["own", "german"]
    assert told["request"] == {"method": "GET", "host": "a.example", "target": "/api/7?x=1"}


def test_headers_method_and_the_answer(ask: Callable[..., dict[str, Any]]) -> None:
    assert ask("/x", "-H", "Accept-Language: de-AT")["rule"]["name"] == "german"
    assert ask("/api/7", "-H", "Host: a.example")["rule"]["name"] == "api"
    assert ask("/me/x")["decision"] == "pass"
    assert ask("/api/7", "-X", "post")["request"]["method"] == "POST"
    told = ask("http://a.example/api/7", "--answer-header", "Set-Cookie: a=1")
    assert (told["stored"], told["reason"]) == (False, "set-cookie")
    assert told["answer"] == {"status": 200, "assumed": False, "source": "given", "age": None}
    assert ask("http://a.example/api/7", "--status", "500")["stored"] is False


def test_a_path_is_explained_for_any_host(ask: Callable[..., dict[str, Any]]) -> None:
    """And where the host decides, it is said which rules may answer."""
    says = "the host decides here, and none was given: api (a.yaml:5) is for a.example; write the whole URL"
    told = ask("/api/7")
    assert (told["rule"]["name"], told["notes"]) == ("none", [says])
    assert ask("http://b.example/api/7")["notes"] == []
    assert ask("/api/7", "-H", "Host: b.example")["notes"] == []
    assert ask("/api/7", "-H", "Accept-Language: de")["notes"] == [], "the same rule whatever the host"
    assert ask("/x")["notes"] == []


def test_without_rules(run: Run) -> None:
    words = ("explain", "/a", "--rules", "none", "--format", "json")
    assert json.loads(run(*words).out)["rule"]["name"] == "none"
    told = json.loads(run(*words, "--answer-header", "Cache-Control: max-age=60").out)
    assert (told["stored"], told["ttl"]) == (True, 60)


def test_the_rules_may_come_from_the_environment(
    run: Run, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPROXY_RULES", str(written(a=RULES)))
    assert "rule     own" in run("explain", "/me/x").out


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("http://A.example", "a.example", "/"),
        ("https://a?b/c", "a", "/?b/c"),
        ("http://a:8080/x#y", "a:8080", "/x"),
        ("/x?next=http://other/", "localhost", "/x?next=http://other/"),
        ("x", "localhost", "/x"),
        ("http://[::1]:80/x", "[::1]:80", "/x"),
    ],
)
def test_urls(ask: Callable[..., dict[str, Any]], url: str, host: str, target: str) -> None:
    assert ask(url)["request"] == {"method": "GET", "host": host, "target": target}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("ftp://a/b",),
        ("http:///b",),
        ("http://u:p@a/b",),
        ("/a b",),
        ("/caf\u00e9",),
        ("/a\r\nb",),
        ("/a", "-H", "no colon"),
        ("/a", "-H", ": no name"),
        ("/a", "-H", "A: \u20ac"),
        ("/a", "-X", "GET IT"),
        ("/a", "--status", "99"),
        ("/a", "--status", "many"),
        ("/a", "--rules", "/no/such"),
        ("/a", "--format", "xml"),
    ],
)
def test_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    done = run("explain", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("edgeproxy")
    assert done.err.count("\n") == 1


def test_wrong_rules(run: Run, written: Written) -> None:
    done = run("explain", "/a", "--rules", str(written(a="rules: 1")))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("edgeproxy: the rules are refused:\na.yaml:1:")


def test_a_body(run: Run, written: Written, tmp_path: Path) -> None:
    rules = written(g="rules: [{name: g, match: {path: /g}, ttl: 1m, key: {body: graphql}}]")
    words = ("explain", "/g", "-X", "POST", "-H", "Content-Type: application/json", "--rules", str(rules))
    body = '{"query": "{ a }"}'
    file = tmp_path / "body.json"
    file.write_text(body)
    one, two = run(*words, "-d", body), run(*words, "--data", f"@{file}")
    assert (one.code, one.out) == (0, two.out)
    assert "cache    stored for 1m" in one.out
    assert "key      http://localhost/g | @POST graphql#" in one.out
    assert "passed: body-not-a-query" in run(*words, "-d", "{}").out
    wrong = run(*words, "-d", "@/nowhere/at/all")
    assert wrong.code == 2
    assert "--data" in wrong.err
