"""What ``check`` says of rules beside their faults: nothing that is not so."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeproxy.policy.head import Headers, RequestHead
from edgeproxy.rules import lint as lint_module
from edgeproxy.rules.compare import FIELDS
from edgeproxy.rules.lint import MOST_CROSSINGS, Finding, Kind, lint
from edgeproxy.rules.load import load_text
from edgeproxy.rules.match import Matcher
from edgeproxy.rules.model import ValueCondition
from edgeproxy.rules.seen import Seen
from edgeproxy.rules.suspicious import seen_live, suspicious


def found(*rules: str) -> list[Finding]:
    return lint(load_text("rules:\n" + "\n".join(f"  - {rule}" for rule in rules)))


def dead(*rules: str) -> dict[str, str]:
    return {each.rule: each.message for each in found(*rules) if each.kind is Kind.DEAD}


def test_a_rule_behind_a_wider_one_is_dead_and_says_behind_which() -> None:
    told = found(
        '{name: api, match: {path: "/api/**"}, ttl: 1m}',
        '{name: items, match: {path: "/api/items/{id}"}, ttl: 5m}',
    )
    assert [(each.kind, each.rule, each.at) for each in told] == [(Kind.DEAD, "items", "rules.yaml:3")]
    assert str(told[0]) == (
        "rules.yaml:3: warning: items: never reached: api (rules.yaml:2) takes all it matches"
    )
    assert told[0].others == (("api", "rules.yaml:2"),)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('{path: "/**", method: [GET, POST]}', '{path: "/a", method: HEAD}'),
        ('{path: "/**", host: "*.example"}', '{path: "/a", host: [a.example, "*.b.example"]}'),
        ("{host: a.example}", '{path: "/a", host: a.example}'),
        ('{path: "/a", headers: {x-beta: true}}', '{path: "/a", headers: {x-beta: "1"}}'),
        ('{path: "/a", headers: {x-beta: ["1", "2"]}}', '{path: "/a", headers: {x-beta: "1", x-more: true}}'),
        ('{path: "/a", cookies: {s: "~[ab]"}}', '{path: "/a", cookies: {s: [a, b]}}'),
        ('{path: "/a", query: {q: false}}', '{path: "/a", query: {q: false, r: true}}'),
    ],
)  # fmt: skip
def test_what_follows_from_the_conditions(first: str, second: str) -> None:
    assert list(dead(f"{{name: one, match: {first}}}", f"{{name: two, match: {second}}}")) == ["two"]
    assert dead(f"{{name: two, match: {second}}}", f"{{name: one, match: {first}}}") == {}


def test_several_rules_together_take_all_of_one() -> None:
    told = dead(
        '{name: get, match: {path: "/api/**", method: GET}}',
        '{name: other, match: {path: "/other"}}',
        '{name: post, match: {path: "/api/**", method: POST}}',
        '{name: late, match: {path: "/api/a", method: [GET, POST]}}',
        '{name: here, match: {path: "/{p}/{q}"}}',
        '{name: deep, match: {path: "/**/x/*"}}',
        '{name: both, match: {path: ["/x/{q}", "/y/x/{q}"]}}',
    )
    assert list(told) == ["late", "both"]
    assert "get (rules.yaml:2), post (rules.yaml:4) take all" in told["late"]
    assert "other" not in told["late"]


def test_one_path_of_several() -> None:
    told = found('{name: a, match: {path: "/a/**"}}', '{name: b, match: {path: ["/a/b", "/c"]}}')
    assert [each.kind for each in told] == [Kind.DEAD_PATH]
    assert '"/a/b" is never reached: a (rules.yaml:2)' in told[0].message


def test_conditions_that_contradict_each_other() -> None:
    ruleset = load_text("rules: [{name: a, match: {path: /a, query: {q: true}}}]")
    rule = ruleset.rules[0]
    absent = ValueCondition("q", present=False)
    broken = replace(rule, match=replace(rule.match, query=(*rule.match.query, absent)))
    told = lint(replace(ruleset, rules=(broken,)))
    assert [each.message for each in told] == ["never reached: its conditions contradict each other"]


def test_overlaps_that_matter_are_noted_with_a_path() -> None:
    told = found(
        '{name: css, match: {path: "/static/*.css"}, ttl: 1m}',
        '{name: new, match: {path: "/static/new-*"}, ttl: 5m}',
        '{name: api, match: {path: "/api/{id}"}, ttl: 5m}',
        '{name: rest, match: {path: "/api/**"}, ttl: 1m}',
        '{name: same, match: {path: "/static/old-*"}, ttl: 1m}',
    )
    assert [(each.kind, each.rule, each.others[0][0]) for each in told] == [(Kind.CROSSING, "css", "new")]
    assert "/static/new-.css matches both, and css answers" in told[0].message
    assert str(told[0]).startswith("rules.yaml:2: note: css: overlaps new (rules.yaml:3)")


@pytest.mark.parametrize(
    ("method", "meant"),
    [
        ("gte", "GET"),
        ("POTS", "POST"),
        ("DELET", "DELETE"),
        ("PROPFNID", "PROPFIND"),
        ("FROBNICATE", ""),
    ],
)
def test_a_method_that_is_not_registered(method: str, meant: str) -> None:
    (told,) = found(f"{{name: a, match: {{path: /a, method: [GET, {method}]}}}}")
    hint = f"; did you mean {meant}?" if meant else ""
    said = f"rules.yaml:2: warning: a: match.method: {method.upper()} is no registered HTTP method{hint}"
    assert (told.kind, str(told)) == (Kind.METHOD, said)
    (told,) = found(f"{{name: a, match: {{path: /a}}, invalidates: {{on: [PUT, {method}], tags: [t]}}}}")
    assert told.message.startswith(f"invalidates.on: {method.upper()} is no")


def test_all_registered_methods_are_known() -> None:
    for method in ("GET", "QUERY", "MKCOL", "VERSION-CONTROL", "get", "PURGE", "BAN"):
        assert found(f"{{name: a, match: {{path: /a, method: {method}}}}}") == []


@pytest.mark.parametrize(
    ("rule", "warned"),
    [
        ("match: {path: /a}, key: {host: false}", True),
        ("match: {path: /a, headers: {host: true}}, key: {host: false}, unsafe: [set_cookie]", True),
        ("match: {path: /a, host: [a.example, '*.b.example']}, key: {host: false}", False),
        ("match: {path: /a, headers: {host: ['a', 'b']}}, key: {host: false}", False),
        ("match: {path: /a, headers: {host: '~.*'}}, key: {host: false}", True),
        ("match: {path: /a, headers: {host: '~[a-z0-9.:-]+'}}, key: {host: false}", True),
        ("match: {path: /a, headers: {host: '~.+[.]shop[.]example'}}, key: {host: false}", False),
        ("match: {path: /a}, key: {host: false, headers: [host]}", False),
        ("match: {path: /a}, key: {host: false}, unsafe: [any_host]", False),
        ("match: {path: /a}, key: {host: false}, pass: true", False),
        ("match: {path: /a}, key: {host: false}, no_store: true", False),
        ("match: {path: /a}, key: {query: none}", False),
    ],
)
def test_a_key_without_host_in_a_rule_for_all_hosts(rule: str, *, warned: bool) -> None:
    told = found(f"{{name: a, {rule}}}")
    assert [each.kind for each in told] == [Kind.HOSTS] * warned
    if told:
        assert str(told[0]).startswith("rules.yaml:2: warning: a: key: {host: false} gives what one host")
        assert "unsafe: [any_host]" in told[0].message


def test_to_accept_it_is_no_other_decision() -> None:
    """Or diff would tell of every URL of the rule."""
    plain, accepted = (
        load_text(
            f"rules: [{{name: a, match: {{path: /a}}, key: {{host: false}}, unsafe: [{words}]}}]"
        ).rules[0]
        for words in ("private", "private, any_host")
    )
    assert [f.name for f in FIELDS if f.of(plain) != f.of(accepted)] == []


def test_where_there_are_too_many_rules_to_look_behind_each_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lint_module, "MOST_LOOKS", 10)
    rules = [f'{{name: r{i}, match: {{path: "/{{a}}/{i}"}}, ttl: 1m}}' for i in range(10)]
    told = found(*rules, '{name: last, match: {path: "/x/1"}}')
    assert [each.message for each in told] == ["too many rules to look behind r5 (rules.yaml:7)"]


def test_too_many_overlaps_are_not_all_told() -> None:
    rules = [f'{{name: r{i}, match: {{path: "/*-{i}-*"}}, ttl: {i}s}}' for i in range(1, 40)]
    told = found(*rules)
    assert [each.kind for each in told[-1:]] == [Kind.UNFINISHED]
    assert len(told) == MOST_CROSSINGS + 1


PATHS = st.sampled_from(["/a", "/a/**", "/a/*", "/**", "*.css", "/a/*.css", "/b/{x}", "/*/c", "/a/**/c"])
HOSTS = st.sampled_from(["", "a.example", "*.example", "*.a.example"])
METHODS = st.sampled_from(["", "GET", "HEAD", "[GET, POST]", "POST"])
CONDITIONS = st.sampled_from(["", "true", "false", '"1"', '["1", "2"]', '"~[12]"', '"~1.*"'])
RULES = st.lists(st.tuples(st.lists(PATHS, min_size=1, max_size=2), HOSTS, METHODS, CONDITIONS), max_size=5)


@settings(max_examples=40)
@given(RULES)
def test_what_is_called_dead_answers_nothing(made: list[tuple[list[str], str, str, str]]) -> None:
    """And nothing is called dead that answers: tried with requests of every kind there is here."""
    lines = []
    for number, (paths, host, method, condition) in enumerate(made):
        match = ["path: [" + ", ".join(f'"{path}"' for path in paths) + "]"]
        match += [f'host: "{host}"'] * bool(host) + [f"method: {method}"] * bool(method)
        match += [f"headers: {{x-a: {condition}}}"] * bool(condition)
        lines.append(f"  - {{name: r{number}, match: {{{', '.join(match)}}}, ttl: {number + 1}s}}")
    if not lines:
        return
    ruleset = load_text("rules:\n" + "\n".join(lines))
    said = {each.rule for each in lint(ruleset) if each.kind is Kind.DEAD}
    matcher = Matcher(ruleset)
    answered = {
        matcher.match(RequestHead(method, "http", host, path, Headers.of(fields))).rule.name
        for method in ("GET", "HEAD", "POST", "PUT")
        for host in ("a.example", "b.a.example", "other")
        for path in (
            "/a",
            "/a/x",
            "/a/x.css",
            "/a/.css",
            "/x.css",
            "/b/c",
            "/b/x",
            "/a/c",
            "/a/b/c",
            "/a/",
            "/x",
        )
        for fields in ([], [("x-a", "1")], [("x-a", "2")], [("x-a", "1z")], [("x-a", "q")])
    }
    assert not said & answered


SHARING = """
rules:
  - {name: own, match: {path: "/me"}, ttl: 1m, unsafe: [authorization], key: {headers: [authorization]}}
  - {name: all, match: {path: "/all/**"}, ttl: 1m, unsafe: [authorization], key: {headers: []}}
  - {name: beta, match: {path: "/x", headers: {x-beta: true}}, ttl: 1m, unsafe: [set_cookie]}
  - {name: set, match: {path: "/x"}, ttl: 1m, unsafe: [set_cookie]}
  - {name: set2, match: {path: "/y"}, ttl: 1m, unsafe: [set_cookie]}
"""


def seen(target: str, reason: str) -> Seen:
    return Seen(0.0, "GET", "h", target, 200, 1, "", "", reason, "", 0.0, None, 0.0, False, False)


def test_what_was_for_one_client_and_would_be_for_all() -> None:
    ruleset = load_text(SHARING)
    log = [
        seen("/all/1", "authorization"), seen("/all/2", "authorization"), seen("/me", "authorization"),
        seen("/all/2", "set-cookie"), seen("/x", "set-cookie"), seen("/y", "set-cookie"), seen("/y", ""),
    ]  # fmt: skip
    told = suspicious(ruleset, log)
    assert [(each.rule, each.kind) for each in told] == [("all", Kind.SUSPICIOUS), ("set2", Kind.SUSPICIOUS)]
    assert "2 requests on its paths in the log had Authorization" in told[0].message
    assert "1 request on its paths in the log had answers that set cookies" in told[1].message
    assert [each.rule for each in seen_live(ruleset, {"own": 3, "all": 2, "gone": 9})] == ["all"]
